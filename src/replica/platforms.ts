/** The chat platforms of a replica. */
import { createPlatformHost, type PlatformHost } from "../server/platforms/host.ts";
import { createLines } from "../server/platforms/lines/lines.ts";
import { createPackages } from "../server/platforms/lines/packages.ts";
import type { Access } from "./access.ts";
import type { Foundation } from "./foundation.ts";
import type { Storage } from "./storage.ts";
import type { Work } from "./work.ts";

export function buildPlatforms(
  { config, log, replicaId, opened }: Foundation,
  storage: Storage,
  { quotas }: Access,
  { bus, feed, inbox, publisher }: Work,
): PlatformHost {
  const { db } = storage.work;
  const { looks } = storage;
  const { publicUrl, cell } = config;
  const { reach } = config.destinations;
  const { leaseMs: ttlMs, packages } = config.platforms;
  const host = createPlatformHost({
    ...{ db, looks, log, replicaId, ttlMs, feed, quotas, publicUrl, bell: publisher, ...config.secrets },
    lines: createLines({ db, log, reach, publicUrl, cell, packages: createPackages(packages) }),
    announce: (hint) => bus.broadcast({ kind: "platform", ...hint }),
  });
  inbox.add({
    receive(message) {
      if (message.kind === "platform") host.poke(message);
      return message.kind === "platform";
    },
  });
  opened.defer(() => host.close());
  return host;
}
