//! An operation of the surface: its path, who answers it, and what the document says of it.
//!
//! What the types of a handler say of it is taken from them ([`crate::api::openapi::described_types`]). Only what types cannot
//! say stands beside the handler in the table: a summary, what an answer means, and which refusals there are.

use std::future::Future;

use axum::handler::Handler;
use axum::routing::MethodFilter;
use axum::routing::MethodRouter;
use axum::routing::on;
use serde_json::Value;

use crate::api::answers::shared_refusal::SharedRefusal;
use crate::api::openapi::described_types::DescribedAnswer;
use crate::api::openapi::described_types::DescribedInput;
use crate::api::openapi::described_types::OperationDescription;
use crate::api::surface::HttpSurface;

/// A method of a path, who answers it, and what the document says of it.
pub(crate) struct RouteOperation {
    pub(crate) method: &'static str,
    pub(crate) path: &'static str,
    pub(crate) answer: MethodRouter<HttpSurface>,
    pub(crate) description: OperationDescription,
}

impl RouteOperation {
    pub(crate) fn get<H, T>(path: &'static str, summary: &'static str, handler: H) -> Self
    where
        H: Handler<T, HttpSurface> + DescribedHandler<T>,
        T: 'static,
    {
        Self::new((MethodFilter::GET, "get"), path, summary, handler)
    }

    pub(crate) fn post<H, T>(path: &'static str, summary: &'static str, handler: H) -> Self
    where
        H: Handler<T, HttpSurface> + DescribedHandler<T>,
        T: 'static,
    {
        Self::new((MethodFilter::POST, "post"), path, summary, handler)
    }

    pub(crate) fn put<H, T>(path: &'static str, summary: &'static str, handler: H) -> Self
    where
        H: Handler<T, HttpSurface> + DescribedHandler<T>,
        T: 'static,
    {
        Self::new((MethodFilter::PUT, "put"), path, summary, handler)
    }

    pub(crate) fn patch<H, T>(path: &'static str, summary: &'static str, handler: H) -> Self
    where
        H: Handler<T, HttpSurface> + DescribedHandler<T>,
        T: 'static,
    {
        Self::new((MethodFilter::PATCH, "patch"), path, summary, handler)
    }

    pub(crate) fn delete<H, T>(path: &'static str, summary: &'static str, handler: H) -> Self
    where
        H: Handler<T, HttpSurface> + DescribedHandler<T>,
        T: 'static,
    {
        Self::new((MethodFilter::DELETE, "delete"), path, summary, handler)
    }

    fn new<H, T>(
        (filter, method): (MethodFilter, &'static str),
        path: &'static str,
        summary: &'static str,
        handler: H,
    ) -> Self
    where
        H: Handler<T, HttpSurface> + DescribedHandler<T>,
        T: 'static,
    {
        let mut description = OperationDescription { summary, ..OperationDescription::default() };
        H::describe(&mut description);
        Self { method, path, answer: on(filter, handler), description }
            .refuses(SharedRefusal::OtherHost)
    }

    /// What more there is to say.
    pub(crate) fn remark(mut self, remark: &'static str) -> Self {
        self.description.remark = Some(remark);
        self
    }

    /// What the answer with this status means.
    pub(crate) fn says(mut self, status: u16, meaning: &'static str) -> Self {
        if let Some(Value::Object(answer)) = self.description.answers.get_mut(&status) {
            answer.insert(String::from("description"), Value::from(meaning));
        }
        self
    }

    /// Without a body it does nothing, although each field of it may be left out.
    pub(crate) fn needs_body(mut self) -> Self {
        if let Some(Value::Object(body)) = &mut self.description.body {
            body.insert(String::from("required"), Value::Bool(true));
        }
        self
    }

    /// A refusal of this operation alone.
    pub(crate) fn refused(mut self, status: u16, why: &'static str) -> Self {
        self.description.answers.insert(status, SharedRefusal::described(why, "Problem"));
        self
    }

    /// A refusal that others have as well, unless the operation has one of its own with this status.
    pub(crate) fn refuses(mut self, refusal: SharedRefusal) -> Self {
        self.description.refuses(refusal);
        self
    }
}

/// A handler whose arguments and answer are described; `T` is axum's marker for its arguments.
pub(crate) trait DescribedHandler<T> {
    fn describe(description: &mut OperationDescription);
}

impl<F, Fut, R> DescribedHandler<((),)> for F
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = R>,
    R: DescribedAnswer,
{
    fn describe(description: &mut OperationDescription) {
        R::describe(description);
    }
}

impl<F, Fut, R, M, A> DescribedHandler<(M, A)> for F
where
    F: FnOnce(A) -> Fut,
    Fut: Future<Output = R>,
    R: DescribedAnswer,
    A: DescribedInput,
{
    fn describe(description: &mut OperationDescription) {
        A::describe(description);
        R::describe(description);
    }
}

impl<F, Fut, R, M, A, B> DescribedHandler<(M, A, B)> for F
where
    F: FnOnce(A, B) -> Fut,
    Fut: Future<Output = R>,
    R: DescribedAnswer,
    A: DescribedInput,
    B: DescribedInput,
{
    fn describe(description: &mut OperationDescription) {
        A::describe(description);
        B::describe(description);
        R::describe(description);
    }
}

impl<F, Fut, R, M, A, B, C> DescribedHandler<(M, A, B, C)> for F
where
    F: FnOnce(A, B, C) -> Fut,
    Fut: Future<Output = R>,
    R: DescribedAnswer,
    A: DescribedInput,
    B: DescribedInput,
    C: DescribedInput,
{
    fn describe(description: &mut OperationDescription) {
        A::describe(description);
        B::describe(description);
        C::describe(description);
        R::describe(description);
    }
}
