//! Has the program compiled again when the console's pages were built again: their names hold
//! hashes, so that new ones are files that nothing has named yet.

fn main() {
    println!("cargo:rerun-if-changed=console/dist");
    println!("cargo:rerun-if-changed=build.rs");
}
