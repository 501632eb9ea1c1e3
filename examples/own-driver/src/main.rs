//! Every command of pinwire, with the RTL8139C+ beside pinwire's own cards.

fn main() -> std::process::ExitCode {
    pinwire::cli::run(&pinwire::open::Drivers::default().with::<own_driver::Driver>())
}
