//! The activator over real sockets: raw clients on one side, real and faked queue-proxies on the other.

#[cfg(test)]
mod admission;
#[cfg(test)]
mod bed;
#[cfg(test)]
mod bodies;
#[cfg(test)]
mod cold;
#[cfg(test)]
mod failing;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod http1;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod model;
