//! One lane per endpoint: order by key, capacity, batches, retry times.
