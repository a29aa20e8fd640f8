//! `rouse-autoscaler` over real sockets.

mod program;
