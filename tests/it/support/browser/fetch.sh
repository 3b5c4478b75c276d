# Unpacks Debian's chromium, its libraries and fonts (Chinese too) below $1, for any user; nothing is installed.
set -eu
home=$1
mkdir -p "$home/lists/partial" "$home/cache/archives/partial" "$home/packages" "$home/root"
: > "$home/status"
set -- -o "Dir::State::Lists=$home/lists" -o "Dir::Cache=$home/cache" -o "Dir::State::status=$home/status" \
    -o Debug::NoLocking=1 -o "APT::Sandbox::User=$(id -un)" -qq
apt-get "$@" update
# What every such system has is left out: the C library, and what login and the system need.
names=$(apt-get "$@" install -s --no-install-recommends chromium fonts-dejavu-core fonts-droid-fallback |
    awk '/^Inst/ { print $2 }' | grep -E '^(lib|chromium|fonts-)' |
    grep -vE '^lib(c6|c-bin|c-l10n|llvm|z3|perl|gdbm|db5|pam|semanage|sepol|audit|cap-ng|acl|md0)')
cd "$home/packages"
# shellcheck disable=SC2086 # a list of names
apt-get "$@" download $names
for package in *.deb; do dpkg-deb -x "$package" "$home/root"; done
rm -rf "$home/lists" "$home/cache" "$home/packages"
printf '<?xml version="1.0"?>\n<fontconfig><dir>%s</dir><cachedir>%s</cachedir></fontconfig>\n' \
    "$home/root/usr/share/fonts" "$home/fonts" > "$home/fonts.conf"
