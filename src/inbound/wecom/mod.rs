pub mod cipher;
pub mod message;
pub mod signature;
pub mod xml;
