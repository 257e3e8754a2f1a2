import { useEffect, useLayoutEffect } from "preact/hooks";
import { askCaller, caller, signedIn, signInError, signOut } from "./data/api.ts";
import { devices } from "./data/devices.ts";
import { liveState, reconnect } from "./data/live.ts";
import { startSync } from "./data/sync.ts";
import { watchers } from "./data/watchers.ts";
import { DialogPlace } from "./parts/dialog.tsx";
import { startFilterKey } from "./parts/filter.tsx";
import { lazy } from "./parts/lazy.tsx";
import { Mark } from "./parts/mark.tsx";
import { Toasts } from "./parts/toasts.tsx";
import { linkTo, route, type View } from "./route.ts";

const SignIn = lazy(async () => (await import("./views/sign-in.tsx")).SignIn);
const FleetView = lazy(async () => (await import("./views/fleet.tsx")).FleetView);
const AgentsView = lazy(async () => (await import("./views/agents.tsx")).AgentsView);
const ConversationsView = lazy(async () => (await import("./views/conversations.tsx")).ConversationsView);
const DestinationsView = lazy(async () => (await import("./views/destinations.tsx")).DestinationsView);
const PlatformsView = lazy(async () => (await import("./views/platforms.tsx")).PlatformsView);
const HooksView = lazy(async () => (await import("./views/hooks.tsx")).HooksView);
const OrgView = lazy(async () => (await import("./views/org.tsx")).OrgView);
const SecretsView = lazy(async () => (await import("./views/secrets.tsx")).SecretsView);
const OrgsView = lazy(async () => (await import("./views/orgs.tsx")).OrgsView);
const SearchView = lazy(async () => (await import("./views/search.tsx")).SearchView);
const HomeView = lazy(async () => (await import("./views/home.tsx")).HomeView);
const DeviceView = lazy(async () => (await import("./views/device.tsx")).DeviceView);
const WatcherView = lazy(async () => (await import("./views/watcher.tsx")).WatcherView);
const WatchersView = lazy(async () => (await import("./views/watchers.tsx")).WatchersView);
const RunsView = lazy(async () => (await import("./views/runs.tsx")).RunsView);
const RunView = lazy(async () => (await import("./views/run/run.tsx")).RunView);
const EventsView = lazy(async () => (await import("./views/events.tsx")).EventsView);
const LoginView = lazy(async () => (await import("./views/login.tsx")).LoginView);
const YouView = lazy(async () => (await import("./views/you.tsx")).YouView);

const titles: Record<View, string> = {
  home: "Home",
  watchers: "Watchers",
  runs: "Runs",
  fleet: "Fleet",
  agents: "Agents",
  conversations: "Conversations",
  events: "Events",
  org: "Org",
  destinations: "Destinations",
  platforms: "Platforms",
  hooks: "Hooks",
  secrets: "Secrets",
  orgs: "Orgs",
  search: "Search",
  you: "You",
  login: "Log in a command",
  "sign-in": "Sign in",
};
const listed: readonly View[] = [
  "home",
  "watchers",
  "runs",
  "fleet",
  "agents",
  "conversations",
  "events",
  "org",
  "search",
];

export function App() {
  return (
    <>
      <Door />
      <Toasts />
    </>
  );
}

function Door() {
  useEffect(() => {
    if (!route.peek().query.has("code") || route.peek().view !== "sign-in") void askCaller();
  }, []);
  const state = signedIn.value;
  const who = caller.value;
  if (route.value.view === "sign-in") return <SignIn />;
  if (state === "out") return <SignIn />;
  if (state === "asking" || !who) {
    return (
      <p class="empty loading" role="status">
        {signInError.value || "Reading…"}
      </p>
    );
  }
  return <Inside key={`${who.orgId} ${who.userId} ${who.signInId}`} />;
}

function Inside() {
  useEffect(() => {
    const stop = [startSync(), startFilterKey()];
    return () => {
      for (const each of stop) each();
    };
  }, []);
  const { view, id } = route.value;
  useEffect(() => {
    document.title = `${view === "runs" && id ? `Run ${id.slice(-8)}` : titles[view]} · Pinion`;
  }, [view, id]);
  useLayoutEffect(() => returnTo(`${view}/${id}`), [view, id]);
  return (
    <>
      <button type="button" class="skip" onClick={() => document.getElementById("main")?.focus()}>
        Skip to the content
      </button>
      <Header />
      <main id="main" tabIndex={-1}>
        <Place view={view} id={id} />
      </main>
      <footer class="foot">
        <a href="docs">Documentation</a>
      </footer>
      <DialogPlace />
    </>
  );
}

/**
 * Scroll position of each place, so the way back from a run leads to the same position in the list.
 */
const scrolled = new Map<string, number>();

function returnTo(place: string): () => void {
  scrollTo(0, scrolled.get(place) ?? 0);
  const remember = () => scrolled.set(place, scrollY);
  addEventListener("scroll", remember, { passive: true });
  return () => removeEventListener("scroll", remember);
}

function Place({ view, id }: { view: View; id: string }) {
  if (view === "login") return <LoginView />;
  if (view === "you") return <YouView />;
  if (view === "fleet") return id ? <DeviceView key={id} id={id} /> : <FleetView />;
  if (view === "watchers") return id ? <WatcherView key={id} id={id} /> : <WatchersView />;
  if (view === "agents") return <AgentsView id={id} />;
  if (view === "conversations") return <ConversationsView id={id} />;
  if (view === "destinations") return <DestinationsView />;
  if (view === "platforms") return <PlatformsView />;
  if (view === "hooks") return <HooksView id={id} />;
  if (view === "secrets") return <SecretsView />;
  if (view === "orgs") return <OrgsView />;
  if (view === "org") return <OrgView />;
  if (view === "search") return <SearchView />;
  if (view === "events") return <EventsView />;
  if (view === "runs") return id ? <RunView key={id} id={id} /> : <RunsView />;
  return <HomeView />;
}

function Header() {
  const counts: Partial<Record<View, number>> = {
    fleet: devices.items.value.length,
    watchers: watchers.items.value.length,
  };
  return (
    <header class="top">
      <a class="brand" href={linkTo("home")} aria-label="Pinion">
        <Mark />
        pinion
      </a>
      <nav aria-label="Views">
        {listed.map((view) => (
          <a key={view} href={linkTo(view)} aria-current={route.value.view === view ? "page" : undefined}>
            {titles[view]}
            {counts[view] ? <small aria-hidden="true">{counts[view]}</small> : null}
          </a>
        ))}
      </nav>
      <div class="who">
        <Live />
        <a class="org" href={linkTo("you")} title="You, and the browsers that are signed in as you">
          {caller.value?.orgName}
        </a>
        <button type="button" class="plain" onClick={() => void signOut()}>
          Sign out
        </button>
      </div>
    </header>
  );
}

const liveWords = {
  off: "off",
  connecting: "connecting",
  live: "live",
  reconnecting: "reconnecting",
  resting: "resting",
};
const liveTitles = {
  off: "",
  connecting: "The stream of events is being opened.",
  live: "What you see changes as it happens.",
  reconnecting: "The server does not answer. What you see may be old; it is tried again by itself.",
  resting: "This tab was hidden for a while.",
};

function Live() {
  const state = liveState.value;
  return (
    <span class="live-state" role="status" title={liveTitles[state]}>
      <span class={`status ${state === "live" ? "good" : state === "reconnecting" ? "bad" : "wait"}`}>
        <i aria-hidden="true" />
        {liveWords[state]}
      </span>
      {state === "reconnecting" && (
        <button type="button" class="plain" onClick={reconnect}>
          try now
        </button>
      )}
    </span>
  );
}
