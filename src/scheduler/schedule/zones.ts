import { editDistance } from "../../values/edit-distance.ts";
import { zoneNames } from "./zone-names.ts";

/**
 * Names of time zones, spelled as in the IANA database. Abbreviations are refused, because each
 * means several places: the library behind Intl takes "BST" for Asia/Dhaka and "IST" for
 * Asia/Calcutta.
 */

const known = new Map(zoneNames.map((name) => [name.toLowerCase(), name]));

/** The most frequent meaning of each abbreviation. */
const abbreviations: Record<string, string> = {
  acdt: "Australia/Adelaide",
  acst: "Australia/Darwin",
  act: "Australia/Sydney",
  aedt: "Australia/Sydney",
  aest: "Australia/Brisbane",
  aet: "Australia/Sydney",
  akdt: "America/Anchorage",
  akst: "America/Anchorage",
  art: "America/Argentina/Buenos_Aires",
  ast: "America/Halifax",
  awst: "Australia/Perth",
  brt: "America/Sao_Paulo",
  bst: "Europe/London",
  cat: "Africa/Maputo",
  cdt: "America/Chicago",
  cest: "Europe/Berlin",
  cet: "Europe/Berlin",
  cnt: "America/St_Johns",
  cst: "America/Chicago",
  cst6cdt: "America/Chicago",
  ct: "America/Chicago",
  ctt: "Asia/Shanghai",
  eat: "Africa/Nairobi",
  ect: "Europe/Paris",
  edt: "America/New_York",
  eest: "Europe/Athens",
  eet: "Europe/Athens",
  est: "America/New_York",
  est5edt: "America/New_York",
  et: "America/New_York",
  hkt: "Asia/Hong_Kong",
  hst: "Pacific/Honolulu",
  ict: "Asia/Bangkok",
  ist: "Asia/Kolkata",
  jst: "Asia/Tokyo",
  kst: "Asia/Seoul",
  mdt: "America/Denver",
  mest: "Europe/Berlin",
  met: "Europe/Berlin",
  mesz: "Europe/Berlin",
  mez: "Europe/Berlin",
  msk: "Europe/Moscow",
  mst: "America/Denver",
  mst7mdt: "America/Denver",
  mt: "America/Denver",
  ndt: "America/St_Johns",
  net: "Asia/Yerevan",
  nst: "America/St_Johns",
  nzdt: "Pacific/Auckland",
  nzst: "Pacific/Auckland",
  pdt: "America/Los_Angeles",
  pht: "Asia/Manila",
  pkt: "Asia/Karachi",
  plt: "Asia/Karachi",
  pst: "America/Los_Angeles",
  pst8pdt: "America/Los_Angeles",
  pt: "America/Los_Angeles",
  sast: "Africa/Johannesburg",
  sgt: "Asia/Singapore",
  sst: "Pacific/Pago_Pago",
  trt: "Europe/Istanbul",
  vst: "Asia/Ho_Chi_Minh",
  wat: "Africa/Lagos",
  west: "Europe/Lisbon",
  wet: "Europe/Lisbon",
  wib: "Asia/Jakarta",
  z: "UTC",
};

/**
 * Whether the name is a zone or a link of the IANA database, in its exact spelling, with rules
 * known to Node.
 */
export function isZone(name: string): boolean {
  if (!known.has(name.toLowerCase()) || known.get(name.toLowerCase()) !== name) return isNewZone(name);
  return isKnownToIntl(name);
}

/** A zone newer than the list of names. Abbreviations have no area before a slash. */
function isNewZone(name: string): boolean {
  return name.includes("/") && !known.has(name.toLowerCase()) && newZones().has(name);
}

let supported: ReadonlySet<string> | undefined;

function newZones(): ReadonlySet<string> {
  supported ??= new Set(Intl.supportedValuesOf("timeZone"));
  return supported;
}

function isKnownToIntl(name: string): boolean {
  try {
    new Intl.DateTimeFormat("en", { timeZone: name });
    return true;
  } catch {
    return false;
  }
}

/** The reason why the name is no zone, with the zone that was probably meant. */
export function explainZone(name: string): string {
  const likely = likelyZone(name);
  const hint = likely
    ? `did you mean "${likely}"?`
    : 'use the name of a zone of the IANA database, such as "Europe/Berlin"';
  if (name.trim() === "") return `the time zone is empty; ${hint}`;
  if (Object.hasOwn(abbreviations, name.toLowerCase())) {
    return `time zone "${name}" is an abbreviation, which means different places to different people; ${hint}`;
  }
  if (/^([+-]|(UTC|GMT)[+-])\d/i.test(name)) {
    return `time zone "${name}" is an offset, which knows no daylight saving; ${hint}`;
  }
  return `time zone "${name}" does not exist; ${hint}`;
}

/**
 * The zone that was probably meant: by its abbreviation, its spelling, its place alone, or with a
 * typing error or two.
 */
export function likelyZone(name: string): string | undefined {
  const normal = name
    .trim()
    .replace(/^:/, "")
    .replace(/^.*\/zoneinfo\/(posix\/|right\/)?/, "")
    .normalize("NFKD")
    .replace(/\p{M}/gu, "")
    .toLowerCase()
    .replace(/\s*\/\s*/g, "/")
    .replace(/[\s-]+(?=[a-z])/g, "_");
  if (normal === "") return undefined;
  if (Object.hasOwn(abbreviations, normal)) return abbreviations[normal];
  const spelled = known.get(normal) ?? known.get(normal.replaceAll("_", "-"));
  if (spelled) return spelled;
  const offset = /^(?:utc|gmt)?([+-])0?(\d{1,2})(?::?00)?$/.exec(normal);
  if (offset) {
    // POSIX counts the other way round: Etc/GMT-2 is two hours ahead of UTC.
    const etc = `etc/gmt${offset[1] === "+" ? "-" : "+"}${Number(offset[2])}`;
    return Number(offset[2]) === 0 ? "UTC" : known.get(etc);
  }
  const place = normal.slice(normal.lastIndexOf("/") + 1);
  const placed = zoneNames.find((candidate) => placeOf(candidate) === place);
  if (placed) return placed;
  return nearest(normal, zoneNames) ?? nearestPlace(place);
}

function placeOf(name: string): string {
  return name.slice(name.lastIndexOf("/") + 1).toLowerCase();
}

function nearestPlace(place: string): string | undefined {
  const found = nearest(
    place,
    zoneNames.map((name) => placeOf(name)),
  );
  return found === undefined ? undefined : zoneNames.find((name) => placeOf(name) === found);
}

/**
 * Typing errors change, drop, add or swap a letter or two; in a short name a single error is half
 * of the name.
 */
function nearest(name: string, candidates: readonly string[]): string | undefined {
  const errorsMax = name.length < 5 ? 1 : 2;
  let best: { candidate: string; errors: number } | undefined;
  for (const candidate of candidates) {
    if (Math.abs(candidate.length - name.length) > errorsMax) continue;
    const errors = editDistance(name, candidate.toLowerCase());
    if (errors <= errorsMax && errors < (best?.errors ?? Number.POSITIVE_INFINITY))
      best = { candidate, errors };
  }
  return best?.candidate;
}
