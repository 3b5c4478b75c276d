//! An answer of the administration, as it comes back from its task, and what a call expects of it.

use crate::api::answers::endpoint_answers::EndpointList;
use crate::api::answers::endpoint_answers::EndpointRemoval;
use crate::api::answers::endpoint_answers::EventTypeList;
use crate::api::answers::endpoint_answers::FindingList;
use crate::api::answers::endpoint_answers::RotatedSecret;
use crate::api::answers::endpoint_answers::ShownEndpoint;
use crate::api::answers::endpoint_answers::TestReport;
use crate::api::answers::endpoint_answers::TrialReport;
use crate::api::answers::endpoint_answers::WebhookReports;
use crate::api::requests::webhook_fields::WebhookFields;

/// An answer of the administration.
#[derive(Debug)]
pub(crate) enum AdminAnswer {
    Endpoints(EndpointList),
    Endpoint(Box<ShownEndpoint>),
    Removal(EndpointRemoval),
    Secret(RotatedSecret),
    Test(TestReport),
    Findings(FindingList),
    EventTypes(EventTypeList),
    Trial(TrialReport),
    Webhook(Box<WebhookFields>),
    Webhooks(Vec<WebhookFields>),
    WebhookReports(WebhookReports),
}

/// An answer that is of another call.
#[derive(Debug)]
pub(crate) struct OtherAnswer;

impl TryFrom<AdminAnswer> for EndpointList {
    type Error = OtherAnswer;

    fn try_from(answer: AdminAnswer) -> Result<Self, OtherAnswer> {
        match answer {
            AdminAnswer::Endpoints(own) => Ok(own),
            _ => Err(OtherAnswer),
        }
    }
}

impl TryFrom<AdminAnswer> for ShownEndpoint {
    type Error = OtherAnswer;

    fn try_from(answer: AdminAnswer) -> Result<Self, OtherAnswer> {
        match answer {
            AdminAnswer::Endpoint(own) => Ok(*own),
            _ => Err(OtherAnswer),
        }
    }
}

impl TryFrom<AdminAnswer> for EndpointRemoval {
    type Error = OtherAnswer;

    fn try_from(answer: AdminAnswer) -> Result<Self, OtherAnswer> {
        match answer {
            AdminAnswer::Removal(own) => Ok(own),
            _ => Err(OtherAnswer),
        }
    }
}

impl TryFrom<AdminAnswer> for RotatedSecret {
    type Error = OtherAnswer;

    fn try_from(answer: AdminAnswer) -> Result<Self, OtherAnswer> {
        match answer {
            AdminAnswer::Secret(own) => Ok(own),
            _ => Err(OtherAnswer),
        }
    }
}

impl TryFrom<AdminAnswer> for TestReport {
    type Error = OtherAnswer;

    fn try_from(answer: AdminAnswer) -> Result<Self, OtherAnswer> {
        match answer {
            AdminAnswer::Test(own) => Ok(own),
            _ => Err(OtherAnswer),
        }
    }
}

impl TryFrom<AdminAnswer> for FindingList {
    type Error = OtherAnswer;

    fn try_from(answer: AdminAnswer) -> Result<Self, OtherAnswer> {
        match answer {
            AdminAnswer::Findings(own) => Ok(own),
            _ => Err(OtherAnswer),
        }
    }
}

impl TryFrom<AdminAnswer> for EventTypeList {
    type Error = OtherAnswer;

    fn try_from(answer: AdminAnswer) -> Result<Self, OtherAnswer> {
        match answer {
            AdminAnswer::EventTypes(own) => Ok(own),
            _ => Err(OtherAnswer),
        }
    }
}

impl TryFrom<AdminAnswer> for TrialReport {
    type Error = OtherAnswer;

    fn try_from(answer: AdminAnswer) -> Result<Self, OtherAnswer> {
        match answer {
            AdminAnswer::Trial(own) => Ok(own),
            _ => Err(OtherAnswer),
        }
    }
}

impl TryFrom<AdminAnswer> for WebhookFields {
    type Error = OtherAnswer;

    fn try_from(answer: AdminAnswer) -> Result<Self, OtherAnswer> {
        match answer {
            AdminAnswer::Webhook(own) => Ok(*own),
            _ => Err(OtherAnswer),
        }
    }
}

impl TryFrom<AdminAnswer> for Vec<WebhookFields> {
    type Error = OtherAnswer;

    fn try_from(answer: AdminAnswer) -> Result<Self, OtherAnswer> {
        match answer {
            AdminAnswer::Webhooks(own) => Ok(own),
            _ => Err(OtherAnswer),
        }
    }
}

impl TryFrom<AdminAnswer> for WebhookReports {
    type Error = OtherAnswer;

    fn try_from(answer: AdminAnswer) -> Result<Self, OtherAnswer> {
        match answer {
            AdminAnswer::WebhookReports(own) => Ok(own),
            _ => Err(OtherAnswer),
        }
    }
}
