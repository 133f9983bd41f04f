#!/bin/sh
# Recipes for the HTTP API with curl. They run against `tributary demo`:
#   SERVER=http://127.0.0.1:8080 APP=shop sh examples/curl.sh
# With `--auth keys`, set KEY to an API key.
set -eu
SERVER=${SERVER:-http://127.0.0.1:8080}
APP=${APP:-shop}
DRAIN=syslog+tls://logs.example.com:6514
auth() { if [ -n "${KEY:-}" ]; then echo "Authorization: Bearer $KEY"; else echo "X-No-Key: 1"; fi; }
request() { curl --silent --show-error --fail-with-body --no-buffer --header "$(auth)" "$@"; }

echo "# Print the last 10 lines and exit"
request "$SERVER/api/apps/$APP/logs?num_lines=10&follow=false"

echo "# Follow for 2 seconds (without --max-time: until you stop it)"
# curl exits with 28 at --max-time.
request --no-show-error --max-time 2 "$SERVER/api/apps/$APP/logs?num_lines=5" || [ $? -eq 28 ]

echo "# Print JSON, one object per line"
request --header "Accept: application/x-ndjson" "$SERVER/api/apps/$APP/logs?num_lines=3&follow=false"

echo "# Print only the lines of the last hour that match a regular expression"
request --get --data-urlencode "since=1h" --data-urlencode "regex=GET|POST" --data "follow=false" \
  "$SERVER/api/apps/$APP/logs"

echo "# Create a link for a browser, valid for 15 minutes"
request --request POST "$SERVER/api/apps/$APP/log-sessions"
echo

echo "# Add a drain, list the drains, remove it"
DRAINS=$(request "$SERVER/api/apps/$APP/drains")
case $DRAINS in
*"\"$DRAIN\""*)
  # The app had this drain before: keep it.
  echo "$DRAINS"
  ;;
*)
  ADDED=$(request --json "{\"url\": \"$DRAIN\"}" "$SERVER/api/apps/$APP/drains") || { echo "$ADDED" >&2; exit 1; }
  ID=$(echo "$ADDED" | sed 's/.*"id":\([0-9]*\).*/\1/')
  request "$SERVER/api/apps/$APP/drains"
  echo
  request --request DELETE --json "{\"drain_id\": $ID}" "$SERVER/api/apps/$APP/drains"
  echo
  ;;
esac

echo "# Read the API description"
request --output /dev/null --write-out "%{http_code} %{content_type}\n" "$SERVER/openapi.json"
