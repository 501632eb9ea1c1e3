//! The `pinwire` command; all of it is in [`pinwire::cli`].

fn main() -> std::process::ExitCode {
    pinwire::cli::run(&pinwire::open::Drivers::default())
}
