//! Plays with one turn of events each.
