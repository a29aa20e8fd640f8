//! The load tester against real sockets. Times are real: nothing here runs on paused time.
