//! End-to-end tests with clients that this project did not write.
