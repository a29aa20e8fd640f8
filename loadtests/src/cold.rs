//! Cold starts: requests to what is scaled to zero, each told apart by proof, and where their time went.

pub mod report;
