import { realpathSync } from "node:fs";
import { explainZone, isZone } from "../../scheduler/schedule/zones.ts";
import type { Environment } from "../cli.ts";
import { exitCodes, Failure } from "../failures.ts";

/**
 * The zone of this machine, an IANA name: that of TZ, in the forms that the C library takes, or the system's. An empty TZ
 * is UTC, as POSIX has it. Undefined where TZ names no zone; Node would go on with UTC, or with another place of that name.
 */
export function findLocalZone(env: Environment): string | undefined {
  const text = env.TZ;
  if (text === undefined) {
    const zone = new Intl.DateTimeFormat().resolvedOptions().timeZone as string | undefined;
    return zone !== undefined && isZone(zone) ? zone : zoneOfFile("/etc/localtime");
  }
  const name = text.replace(/^:/, "");
  if (name === "") return "UTC";
  if (name.startsWith("/")) return zoneOfFile(name);
  return isZone(name) ? name : undefined;
}

/** As {@link findLocalZone}, for what needs one. Fails with how to name it. */
export function localTimeZone(env: Environment): string {
  const found = findLocalZone(env);
  if (found !== undefined) return found;
  throw new Failure(
    exitCodes.usage,
    env.TZ === undefined ? "this machine's time zone has no name" : `TZ: ${explainZone(env.TZ)}`,
    "name the zone of the schedule with --zone, or set TZ",
  );
}

/** "/usr/share/zoneinfo/Europe/Berlin", also by a link. */
function zoneOfFile(path: string): string | undefined {
  let real = path;
  try {
    real = realpathSync(path);
  } catch {
    // Its name may say it all the same.
  }
  const name = real
    .split("/zoneinfo/")
    .at(-1)!
    .replace(/^(posix|right)\//, "");
  return isZone(name) ? name : undefined;
}
