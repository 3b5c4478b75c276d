//! What answers are made of: their types, their words, and errors.
//!
//! | file | holds |
//! | --- | --- |
//! | `admin_answer` | An answer of the administration, and what a call expects of it |
//! | `endpoint_answers` | What the administration answers, each answer with its type |
//! | `endpoint_condition` | How an endpoint does, in words, and what is to be done about it |
//! | `handler_answers` | Answers of handlers: with a status of their own, of a dry run, of texts that are no JSON |
//! | `member_list` | Who delivers for a source that several processes share |
//! | `problem` | Errors as `application/problem+json` (RFC 9457) |
//! | `shared_refusal` | Refusals that many operations have |
//! | `source_status` | The source as the API shows it |
//! | `status_report` | What `GET /api/v1/status` shows |
//! | `success_answer` | Answers of the calls that clients of the five systems make |

pub(crate) mod admin_answer;
pub(crate) mod endpoint_answers;
pub(crate) mod endpoint_condition;
pub(crate) mod handler_answers;
pub(crate) mod member_list;
pub(crate) mod problem;
pub(crate) mod shared_refusal;
pub(crate) mod source_status;
pub(crate) mod status_report;
pub(crate) mod success_answer;
