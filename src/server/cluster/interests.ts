/**
 * The interest protocol of replicas, shared by the feed and the transients. A replica with viewers
 * of a subject announces its interest to all others, and renews the announcement three times in
 * `interestMs`. The replica with the news notes the interest and sends the news only there. An
 * interest that is not renewed runs out.
 *
 *   viewer ─▶ Viewers (here) ──announcement──▶ Interests (elsewhere) ──news──▶ Viewers (here)
 */

/** How long another replica's interest holds, in milliseconds. */
const interestMs = 60_000;
/** Maximum pairs of a subject and a replica. Interests beyond the limit are not served. */
const interestsMax = 50_000;

export type Viewers<Viewer> = {
  /** Adds a viewer; `leave` removes the viewer and returns whether the last viewer has left. */
  add(subject: string, viewer: Viewer): { isFirst: boolean; leave: () => boolean };
  of(subject: string): Iterable<Viewer>;
  has(subject: string): boolean;
  subjects(): Iterable<string>;
  close(): void;
};

/** The viewers on the replica, by subject. `announce` tells the other replicas of the interest. */
export function createViewers<Viewer>(announce: (subject: string) => void): Viewers<Viewer> {
  const viewersOf = new Map<string, Set<Viewer>>();
  const renew = setInterval(() => {
    for (const subject of viewersOf.keys()) announce(subject);
  }, interestMs / 3);
  renew.unref();
  return {
    add(subject, viewer) {
      const viewers = viewersOf.get(subject) ?? new Set<Viewer>();
      viewersOf.set(subject, viewers.add(viewer));
      return {
        isFirst: viewers.size === 1,
        leave() {
          if (!viewers.delete(viewer) || viewers.size > 0) return false;
          viewersOf.delete(subject);
          return true;
        },
      };
    },
    of: (subject) => viewersOf.get(subject) ?? [],
    has: (subject) => viewersOf.has(subject),
    subjects: () => viewersOf.keys(),
    close: () => clearInterval(renew),
  };
}

export type Interests<State> = {
  /**
   * Notes or renews a replica's interest, and returns the interest's state; undefined beyond the
   * limit. An interest that had run out begins anew.
   */
  note(subject: string, replicaId: string): State | undefined;
  forget(subject: string, replicaId: string): void;
  /** Whether a replica may be interested. */
  has(subject: string): boolean;
  /** The interested replicas, with the states of their interests. */
  of(subject: string): [replicaId: string, state: State][];
  close(): void;
};

/** The interests of other replicas, by subject. */
export function createInterests<State>(make: () => State): Interests<State> {
  type Interest = { until: number; state: State };
  const interestsOf = new Map<string, Map<string, Interest>>();
  let count = 0;

  function forget(subject: string, replicaId: string): void {
    const interests = interestsOf.get(subject);
    if (interests?.delete(replicaId)) count -= 1;
    if (interests?.size === 0) interestsOf.delete(subject);
  }

  const expire = setInterval(() => {
    const now = performance.now();
    for (const [subject, interests] of interestsOf) {
      for (const [replicaId, { until }] of interests) if (until < now) forget(subject, replicaId);
    }
  }, interestMs / 3);
  expire.unref();

  return {
    note(subject, replicaId) {
      const now = performance.now();
      const known = interestsOf.get(subject)?.get(replicaId);
      if (known && known.until < now) forget(subject, replicaId);
      if (known && known.until >= now) {
        known.until = now + interestMs;
        return known.state;
      }
      if (count >= interestsMax) return undefined;
      count += 1;
      const interests = interestsOf.get(subject) ?? new Map<string, Interest>();
      const interest = { until: now + interestMs, state: make() };
      interestsOf.set(subject, interests.set(replicaId, interest));
      return interest.state;
    },
    forget,
    has: (subject) => interestsOf.has(subject),
    of(subject) {
      const now = performance.now();
      return [...(interestsOf.get(subject) ?? [])].flatMap(([replicaId, { until, state }]) =>
        until < now ? [] : [[replicaId, state]],
      );
    },
    close: () => clearInterval(expire),
  };
}
