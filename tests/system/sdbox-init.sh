# Becomes PID 1 of a box: a copy-on-write view of this machine in which a real systemd runs.
# Called inside new namespaces as: bash -eu sdbox-init.sh FOLDER [SOURCE TARGET]...   (read-only binds)
folder=$1; shift
mount -t tmpfs tmpfs "$folder"
mkdir "$folder/upper" "$folder/work" "$folder/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"

# The overlay does not show file systems mounted below /, and no service may enter /root: both are bound in.
while [ $# -gt 0 ]; do
    mkdir -p "$folder/root$2"
    mount --bind "$1" "$folder/root$2"
    mount -o remount,bind,ro "$folder/root$2"
    shift 2
done

cd "$folder/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
mkdir dev/pts dev/shm dev/mqueue
for name in null zero full random urandom tty; do
    : > "dev/$name"
    mount --bind "/dev/$name" "dev/$name"
done
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs run
printf %032x 1 > etc/machine-id
echo sdbox > etc/hostname
ip link set lo up

mkdir -p old
pivot_root . old
umount -l old
# Without this, the folders of credentials stay empty inside services.
mount --make-rshared /
# basic.target, because multi-user.target would start this machine's own services.
exec env -i container=sdbox PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=basic.target
