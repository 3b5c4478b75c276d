//! Lets stages run in any order, and end at any await.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::task::Poll;

use futures_util::future::LocalBoxFuture;

use crate::pipeline::simulation::world::SharedWorld;
use crate::pipeline::simulation::world::StageTurn;

/// A stage: its name, and how it ended.
pub(super) type StageEnd = (&'static str, anyhow::Result<()>);

/// One stage of a run. What wakes it wakes it later, now and then; and after a crash nothing does.
pub(super) struct InterleavedStage {
    world: SharedWorld,
    stage: LocalBoxFuture<'static, StageEnd>,
}

impl InterleavedStage {
    pub(super) fn new(
        world: &SharedWorld,
        name: &'static str,
        stage: impl Future<Output = anyhow::Result<()>> + 'static,
    ) -> Self {
        let stage = Box::pin(async move { (name, stage.await) });
        Self { world: world.clone(), stage }
    }
}

impl Future for InterleavedStage {
    type Output = StageEnd;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<StageEnd> {
        match self.world.turn(context.waker()) {
            StageTurn::Go => self.stage.as_mut().poll(context),
            StageTurn::Defer => {
                context.waker().wake_by_ref();
                Poll::Pending
            }
            StageTurn::Freeze | StageTurn::Crash => Poll::Pending,
        }
    }
}
