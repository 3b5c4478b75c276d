//! The preset `ocr-wallet`: the columns of its table, and how walhook names itself to its receivers.

/// How walhook names itself to the receivers of `ocr-wallet`.
pub(crate) const USER_AGENT: &str = "wx-msg-chat-webhook/1.0";

/// When a row was born.
pub(crate) const AGE_COLUMN: &str = "create_time";

/// By which the log names a row.
pub(crate) const FACTS: [&str; 3] = ["id", "wallet_code", AGE_COLUMN];

/// Columns of `data`, in its order. `create_time` is epoch seconds; `pic_url` is left
/// out when null.
pub(crate) const COLUMNS: [&str; 10] = [
    "id",
    "source_ip",
    "msg_id",
    "group_id",
    "wallet_code",
    "serial_no",
    "wx_id",
    "wx_nick_name",
    "pic_url",
    "create_time",
];
