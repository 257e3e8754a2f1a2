/** The viewer's place: the part of the address after "#", so every place has a link. */
import { signal } from "@preact/signals";

export const views = [
  "home",
  "watchers",
  "runs",
  "fleet",
  "agents",
  "conversations",
  "events",
  "org",
  "destinations",
  "platforms",
  "hooks",
  "secrets",
  "orgs",
  "search",
  "you",
  "login",
  "sign-in",
] as const;
export type View = (typeof views)[number];

/** A place such as `#/runs/<id>?status=failed`. */
export type Route = { view: View; id: string; query: URLSearchParams };

export const route = signal<Route>(parse(location.hash));

export function startRouter(): void {
  addEventListener("hashchange", () => {
    clearTimeout(writing);
    route.value = parse(location.hash);
  });
}

function parse(hash: string): Route {
  const [path = "", ...rest] = hash.replace(/^#\/?/, "").split("?");
  const [first = "", id = ""] = path.split("/");
  const view = views.find((known) => known === first) ?? "home";
  return { view, id: decode(id), query: new URLSearchParams(rest.join("?")) };
}

/** An invalid address leads to a not-found view, not to a broken page. */
function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The link to a place; empty values are left out. */
export function linkTo(view: View, id = "", query: Record<string, string> = {}): string {
  const params = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== ""));
  const text = params.toString();
  return `#/${view}${id ? `/${encodeURIComponent(id)}` : ""}${text ? `?${text}` : ""}`;
}

export function goTo(view: View, id = "", query: Record<string, string> = {}): void {
  location.hash = linkTo(view, id, query);
}

/** Goes to the place of a link without a new history entry. Other text leads home. */
export function replacePlace(place: string): void {
  history.replaceState(null, "", place.startsWith("/") ? `#${place}` : linkTo("home"));
  route.value = parse(location.hash);
}

/** Delay of writes to the address in ms: browsers refuse a change at every key press. */
const writeAfterMs = 300;
let writing: ReturnType<typeof setTimeout> | undefined;

/** Changes the query of the current place without a new history entry. */
export function setQuery(changes: Record<string, string>): void {
  const { view, id, query } = route.value;
  const link = linkTo(view, id, { ...Object.fromEntries(query), ...changes });
  route.value = parse(link);
  clearTimeout(writing);
  writing = setTimeout(() => history.replaceState(null, "", link), writeAfterMs);
}
