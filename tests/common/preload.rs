//! A small library that the gateway preloads. It adds an offset to the wall clock of the process, and makes the forwarder hang while
//! a file exists.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::fs;
use std::process::Command;

use crate::process::Home;

/// Compiles the library, and makes the processes of `home` load it.
pub fn preload(home: &mut Home) {
    let dir = home.journal().with_file_name("");
    let (code, library) = (dir.join("preload.c"), dir.join("preload.so"));
    fs::write(&code, LIBRARY).expect("target/ can be written to");
    let compiled = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).args([&library, &code]).arg("-ldl").status();
    assert!(compiled.expect("cc can be run (Debian: gcc)").success());
    home.set("LD_PRELOAD", library.to_str().expect("the path is text"));
    home.set("CLOCK_OFFSET_FILE", dir.join("offset").to_str().expect("the path is text"));
    home.set("HANG_FILE", dir.join("hang").to_str().expect("the path is text"));
    set_offset(home, 0);
}

/// Sets the difference in seconds between the wall clock of hookhold and the clock of the machine.
pub fn set_offset(home: &Home, seconds: i64) {
    // A rename, so that the process never reads half of a number.
    home.put("offset.new", seconds.to_string().as_bytes());
    let file = home.journal().with_file_name("offset");
    fs::rename(file.with_file_name("offset.new"), file).expect("target/ can be written to");
}

/// Makes the forwarder hang, or lets it continue.
pub fn set_hanging(home: &Home, hangs: bool) {
    match hangs {
        true => home.put("hang", b""),
        false => fs::remove_file(home.journal().with_file_name("hang")).expect("the file exists"),
    }
}

/// Replaces the function with which the Rust standard library reads the wall clock.
const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *now) {
    int (*real)(clockid_t, struct timespec *) = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    if (clock != CLOCK_REALTIME)
        return real(clock, now);
    char name[32] = {0}, text[32] = {0};
    prctl(PR_GET_NAME, name);
    while (strcmp(name, "forward") == 0 && access(getenv("HANG_FILE"), F_OK) == 0)
        usleep(10000);
    int result = real(clock, now);
    int file = open(getenv("CLOCK_OFFSET_FILE"), O_RDONLY | O_CLOEXEC);
    if (file >= 0 && read(file, text, sizeof text - 1) > 0)
        now->tv_sec += atoll(text);
    if (file >= 0)
        close(file);
    return result;
}
"#;
