import type { Placer } from "./placer.ts";
import type { Subscriber } from "./publisher.ts";

/** Requests a pass of the placer after each commit that may give a held run its place. */
export function placerSubscriber(placer: Placer): Subscriber {
  return {
    recorded(runs) {
      for (const { status, orgId, attemptToken, dueAt, isHeld } of runs) {
        if (status === "pending" && !attemptToken && isHeld) placer.recorded(orgId, dueAt);
      }
    },
    settled(settled) {
      for (const { orgId, notBefore } of settled) {
        if (notBefore) placer.freedAt(orgId, notBefore);
        placer.freed(orgId);
      }
    },
    deviceOpened: (orgId) => placer.freed(orgId),
    devicesChanged: (orgId) => placer.changed(orgId),
  };
}
