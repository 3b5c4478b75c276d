//! Log set-up; every metric's name, help and labels.
