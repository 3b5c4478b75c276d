pub(crate) mod cipher;
pub(crate) mod message;
pub(crate) mod signature;
pub(crate) mod xml;
