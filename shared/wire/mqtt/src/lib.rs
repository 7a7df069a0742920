//! MQTT 3.1.1 and 5.0 without I/O: the codec, and the state of a connection and a session.
