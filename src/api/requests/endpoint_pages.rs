//! Pagination of the list of endpoints: `limit`, `cursor` and `name` of `GET /api/v1/endpoints`.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::api::answers::problem::ProblemResponse;
use crate::api::requests::field_kinds::BoundedNumber;
use crate::api::requests::fields::bad;
use crate::flow::settlement::EndpointIndex;

/// Endpoints in a list where the caller does not say how many.
const PAGE: u32 = 1_000;

/// The most that a caller can ask for: some 10 MB.
const PAGE_MAX: u32 = 10_000;

type PageSize = BoundedNumber<1, PAGE_MAX>;

/// Which endpoints are shown.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct EndpointChoice {
    /// Only those whose names have this in them
    name: Option<String>,
    /// 1000 if it is left out
    limit: Option<PageSize>,
}

/// From where on.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct EndpointCursor {
    /// next_cursor of the page before
    cursor: Option<String>,
}

/// Endpoints that are chosen by their names, so many at once.
#[derive(Clone, Debug)]
pub(crate) struct EndpointsShown {
    name: Option<String>,
    pub(crate) limit: usize,
}

/// A page of the list of endpoints.
#[derive(Clone, Debug)]
pub(crate) struct EndpointPage {
    pub(crate) shown: EndpointsShown,
    /// The last one of the page before.
    pub(crate) after: Option<EndpointIndex>,
}

impl From<EndpointChoice> for EndpointsShown {
    fn from(EndpointChoice { name, limit }: EndpointChoice) -> Self {
        let limit = limit.map_or(PAGE, |limit| limit.0);
        let name = name.map(|name| name.to_lowercase());
        Self { name, limit: usize::try_from(limit).unwrap_or(usize::MAX) }
    }
}

impl EndpointsShown {
    /// Whether an endpoint of this name is meant.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.name.as_ref().is_none_or(|part| name.to_lowercase().contains(part))
    }
}

impl EndpointPage {
    /// # Errors
    /// The cursor is none.
    pub(crate) fn of(
        choice: EndpointChoice,
        EndpointCursor { cursor }: EndpointCursor,
    ) -> Result<Self, ProblemResponse> {
        let index = |cursor: String| {
            let index = cursor.parse().map(EndpointIndex);
            index.map_err(|_| {
                bad(format!("{cursor:?} is no cursor: give next_cursor of the page before"))
            })
        };
        Ok(Self { shown: choice.into(), after: cursor.map(index).transpose()? })
    }

    /// What continues after this endpoint.
    pub(crate) fn cursor(last: EndpointIndex) -> String {
        last.0.to_string()
    }
}
