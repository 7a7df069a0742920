//! The platform with a broker that is played: devices come and go, acknowledge or do not, and the
//! process dies.

mod crash;
mod lists;
mod people;
mod rules;
mod sends;
mod world;
