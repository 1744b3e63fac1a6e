//! `/init` of the initrd. All of it is in the library; here is only the check that this process may do what it does.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Err(error) = boot_hooks::init::refuse_outside_an_initrd() {
        boot_hooks::console::refuse(&error);
        return ExitCode::from(2);
    }
    boot_hooks::init::run()
}
