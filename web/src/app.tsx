import { signal } from "@preact/signals";
import { useEffect, useLayoutEffect } from "preact/hooks";
import { orgOf, signOut, token } from "./data/api.ts";
import { devices } from "./data/devices.ts";
import { liveState, reconnect } from "./data/live.ts";
import { startSync } from "./data/sync.ts";
import { watchers } from "./data/watchers.ts";
import { DialogPlace } from "./parts/dialog.tsx";
import { startFilterKey } from "./parts/filter.tsx";
import { Mark } from "./parts/mark.tsx";
import { Toasts } from "./parts/toasts.tsx";
import { linkTo, route, type View, views } from "./route.ts";
import { EventsView } from "./views/events.tsx";
import { FleetView } from "./views/fleet.tsx";
import { RunView } from "./views/run/run.tsx";
import { RunsView } from "./views/runs.tsx";
import { SignIn } from "./views/sign-in.tsx";
import { WatchersView } from "./views/watchers.tsx";

const org = signal("");
const titles: Record<View, string> = { fleet: "Fleet", watchers: "Watchers", runs: "Runs", events: "Events" };

export function App() {
  return (
    <>
      {token.value === "" ? <SignIn /> : <SignedIn key={token.value} />}
      <Toasts />
    </>
  );
}

function SignedIn() {
  useEffect(() => {
    const stop = [startSync(), startFilterKey()];
    orgOf(token.peek())
      .then((name) => {
        org.value = name;
      })
      .catch(() => {});
    return () => {
      for (const each of stop) each();
      org.value = "";
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
      <DialogPlace />
    </>
  );
}

/** How far down each place was, so that the way back from a run leads to where it was in the list. */
const scrolled = new Map<string, number>();

function returnTo(place: string): () => void {
  scrollTo(0, scrolled.get(place) ?? 0);
  const remember = () => scrolled.set(place, scrollY);
  addEventListener("scroll", remember, { passive: true });
  return () => removeEventListener("scroll", remember);
}

function Place({ view, id }: { view: View; id: string }) {
  if (view === "fleet") return <FleetView />;
  if (view === "watchers") return <WatchersView />;
  if (view === "events") return <EventsView />;
  return id ? <RunView key={id} id={id} /> : <RunsView />;
}

function Header() {
  const counts: Partial<Record<View, number>> = {
    fleet: devices.items.value.length,
    watchers: watchers.items.value.length,
  };
  return (
    <header class="top">
      <a class="brand" href={linkTo("fleet")} aria-label="Pinion">
        <Mark />
        pinion
      </a>
      <nav aria-label="Views">
        {views.map((view) => (
          <a key={view} href={linkTo(view)} aria-current={route.value.view === view ? "page" : undefined}>
            {titles[view]}
            {counts[view] ? <small aria-hidden="true">{counts[view]}</small> : null}
          </a>
        ))}
      </nav>
      <div class="who">
        <Live />
        <span class="org" title="The org of this token">
          {org.value}
        </span>
        <button type="button" class="plain" onClick={() => signOut()}>
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
