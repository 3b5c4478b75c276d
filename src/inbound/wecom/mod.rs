//! Callbacks of WeCom: the signature, the cipher, the XML, and the row that is kept.

pub(crate) mod cipher;
pub(crate) mod message;
pub(crate) mod signature;
pub(crate) mod xml;
