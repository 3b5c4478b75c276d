//! Why a delivery was parked: kept in the backlog for later.

/// Why a delivery was parked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ParkReason {
    /// Its next attempt is far away, or it was parked before and has failed again.
    Retry,
    /// An earlier delivery that it has to follow is parked.
    Behind,
    /// The endpoint is out of order.
    Outage,
    /// The lane had no room for it.
    Full,
    /// The endpoint is disabled.
    Disabled,
    /// An operator has paused the endpoint.
    Paused,
    /// Nobody delivers for the endpoint's partition.
    Unowned,
}

impl ParkReason {
    pub const ALL: [Self; 7] = [
        Self::Retry,
        Self::Behind,
        Self::Outage,
        Self::Full,
        Self::Disabled,
        Self::Paused,
        Self::Unowned,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Behind => "behind",
            Self::Outage => "outage",
            Self::Full => "full",
            Self::Disabled => "disabled",
            Self::Paused => "paused",
            Self::Unowned => "unowned",
        }
    }
}
