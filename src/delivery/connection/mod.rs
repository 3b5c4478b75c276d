//! From an address to a connection: names, guarded addresses, sockets, TLS, proxies, and what goes wrong on the way.
//!
//! | file | holds |
//! | --- | --- |
//! | `address_guard` | Which addresses may be dialled |
//! | `connections` | The connections to one endpoint |
//! | `dial` | Makes connections to one endpoint |
//! | `guarded_resolver` | Name resolution that gives only addresses which may be dialled |
//! | `http1_connection` | One HTTP/1.1 connection, driven by the attempt that uses it |
//! | `lookup` | Look-ups of names: shared per name, limited in number, each with a deadline |
//! | `multiplexed` | The HTTP/2 connection to one endpoint |
//! | `network` | What all endpoints share of the outside |
//! | `own_shortage` | What walhook or its system has none left of |
//! | `resolve_error` | Why a name did not resolve |
//! | `shared_pools` | Connections that endpoints of one host and port have in common |
//! | `sockets` | How many sockets deliveries may hold: fewer than the process may have |
//! | `stalled_bodies` | Large bodies that hang while their memory is wanted |
//! | `streams` | Turns on an HTTP/2 connection: as many requests at once as the peer lets there be streams |
//! | `transport_failure` | What kind of failure a transport error is |
//! | `transport_trouble` | Why a request has no response |
//! | `trust` | Whom an endpoint's TLS trusts that has authorities of its own (`tls.ca`) |
//! | `tunnel` | A way through an HTTP proxy |
//! | `url_target` | Where a URL leads, and by which way |
//! | `write_gate` | A socket that writes only while requests may be made |

pub(crate) mod address_guard;
pub(crate) mod connections;
pub(crate) mod dial;
pub(crate) mod guarded_resolver;
pub(crate) mod http1_connection;
pub(crate) mod lookup;
pub(crate) mod multiplexed;
pub(crate) mod network;
pub(crate) mod own_shortage;
pub(crate) mod resolve_error;
pub(crate) mod shared_pools;
pub(crate) mod sockets;
pub(crate) mod stalled_bodies;
pub(crate) mod streams;
pub(crate) mod transport_failure;
pub(crate) mod transport_trouble;
pub(crate) mod trust;
pub(crate) mod tunnel;
pub(crate) mod url_target;
pub(crate) mod write_gate;
