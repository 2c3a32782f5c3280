#!/bin/sh
# Builds the image where there is no container engine: buildah runs each instruction of the Dockerfile in a clean Debian
# by debootstrap, which stands for the base image. As root:
#   TORCH_INDEX=… tests/build_image.sh FOLDER [buildah's options, as --volume /etc/pip.conf:/etc/pip.conf:ro]
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
folder=$1
shift
b() { buildah --storage-driver vfs --root "$folder/store" --runroot "$folder/run" "$@"; }

mkdir -p "$folder"
base=$(sed -n 's/^FROM \([^ ]*\) AS build$/\1/p' "$root/Dockerfile")
if ! b inspect --type image "$base" >/dev/null 2>&1; then
    packages=python3,python3-venv,python-is-python3,ca-certificates
    [ -d "$folder/base" ] || debootstrap --variant=minbase --include=$packages bookworm "$folder/base"
    container=$(b from scratch)
    cp -a "$folder/base/." "$(b mount "$container")/"
    b config --env PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin "$container"
    b commit --quiet --rm "$container" "docker.io/library/$base"
fi
b bud --isolation chroot --pull-never --format docker --network host ${TORCH_INDEX:+--build-arg TORCH_INDEX="$TORCH_INDEX"} \
    "$@" --tag fashion-retrieval --file "$root/Dockerfile" "$root"

# It starts as its user, refuses to without keys, and answers its own health check, a stranger and a key's holder.
container=$(b from --pull-never fashion-retrieval)
mounted=$(b mount "$container")
[ -z "$(find "$mounted/opt/venv" -iname '*nvidia*' -o -iname 'libcudart*')" ] || echo "CUDA came along" >&2
du -sh "$mounted/opt/venv"
install -m 444 /dev/stdin "$mounted/srv/keys" <<END
0123456789abcdef
END
install -m 444 "$root/examples/grace_hopper.jpg" "$mounted/srv/photo.jpg"
chmod 555 "$mounted/home/app" "$mounted/galleries"  # a file system that can only be read, but for /cache and /tmp
health=$(sed -n 's/^ *CMD \["python", "-c", "\(.*\)"\]$/\1/p' "$root/Dockerfile" | sed 's/\\"/"/g')
b run --isolation chroot "$container" -- fashion-retrieval serve && exit 1
b run --isolation chroot --env FASHION_RETRIEVAL_API_KEY_FILE=/srv/keys --env FASHION_RETRIEVAL_PORT=18999 \
    --env HEALTH="$health" "$container" -- sh -euc '
    id -u
    fashion-retrieval serve &
    service=$!
    tries=0
    until python -c "$HEALTH" 2>/dev/null; do tries=$((tries + 1)); [ $tries -lt 120 ]; sleep 1; done
    python - <<END
import base64, json, urllib.error, urllib.request
photo = base64.b64encode(open("/srv/photo.jpg", "rb").read()).decode()
for key in ("fedcba9876543210", "0123456789abcdef"):
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    body = json.dumps({"photos": [photo]}).encode()
    request = urllib.request.Request("http://127.0.0.1:18999/v1/recognize", body, headers)
    try:
        found = json.load(urllib.request.urlopen(request))["results"][0]["garments"]
        print([garment["category"]["name"] for garment in found])
    except urllib.error.HTTPError as error:
        print(error.code)
END
    kill -TERM $service
    wait $service'
