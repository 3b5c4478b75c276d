//! Counts of a lane in events, and the places of its capacity that it gives back.

/// What an event takes up on its way into the lane.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DeliveryPlace {
    /// One of the lane's places, of which there are as many as its capacity.
    Own,
    /// A place for what finds no room in the lane: it must not stay.
    Overflow,
}

/// Places that have become free.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct FreedDelivery {
    pub own: usize,
    pub overflow: usize,
    /// Those of `own` that replays had.
    pub replays: usize,
    /// Those of `own` and `overflow` whose deliveries went on into the backlog.
    pub outside: usize,
    /// What the events of `own` weighed, but for replays, which have no part in the lane's share.
    pub weight: usize,
}

impl std::ops::AddAssign for FreedDelivery {
    fn add_assign(&mut self, other: Self) {
        self.own += other.own;
        self.overflow += other.overflow;
        self.replays += other.replays;
        self.outside += other.outside;
        self.weight += other.weight;
    }
}

/// What a lane holds, in events.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LaneCounts {
    /// Not in flight and not tried since they came into memory.
    pub queued: usize,
    pub in_flight: usize,
    /// Tried, and waiting for the next attempt.
    pub retrying: usize,
    /// Of the three above, those that are in the backlog as well.
    pub parked: usize,
    /// Of the first three, those that an operator sends again.
    pub replays: usize,
    /// In the backlog only.
    pub outside: usize,
}
