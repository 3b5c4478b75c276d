//! One lane per endpoint: order by key, capacity, batches, retry times.

pub mod lane;
pub mod settings;

#[cfg(test)]
mod samples;
