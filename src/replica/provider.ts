/** Sign-in with a provider of OpenID Connect, if configured. */
import type { OidcDoor } from "../server/access/oidc.ts";
import type { Handler } from "../server/http/port/requests.ts";
import * as signInCodes from "../store/people/credentials/sign-in-codes.ts";
import * as arrivals from "../usecases/arrivals.ts";
import { withCell } from "../values/ids.ts";
import type { Access } from "./access.ts";
import type { Foundation } from "./foundation.ts";
import type { Storage } from "./storage.ts";
import type { Work } from "./work.ts";

/** The provider's library is loaded only with a configured provider. */
export async function withProvider(
  next: Handler,
  parts: { foundation: Foundation; storage: Storage; access: Access; work: Work; poke: () => void },
): Promise<Handler> {
  const { config, log } = parts.foundation;
  const { db } = parts.storage.requests;
  const { guard, quotas } = parts.access;
  const { publisher, streamEnds, feed } = parts.work;
  const { oidc, signInMs, trustedProxies } = config;
  if (!oidc) return next;
  const { withOidc } = await import("../server/access/oidc.ts");
  const surroundings = {
    policy: { ...config.failures, quotas },
    quotas,
    doorbell: publisher,
    log,
    scheduleChanged: parts.poke,
  };
  const door: OidcDoor = {
    async begin({ address, data, expiresInMs }) {
      const { code } = await signInCodes.create(db, { kind: "oidc", address, data, expiresInMs });
      return withCell(code, config.cell);
    },
    end: async (code) => (await signInCodes.consume<signInCodes.OidcData>(db, { kind: "oidc", code }))?.data,
    async admit(person, from) {
      const admitted = await arrivals.admit(db, oidc, person, { ...from, signInMs, surroundings });
      if (typeof admitted === "string") return admitted;
      const { changed, userId } = admitted;
      if (changed) guard.authCache.forgetPerson({ orgId: oidc.orgId, userId });
      for (const tokenId of changed?.cut.tokenIds ?? []) {
        guard.authCache.forget(tokenId);
        streamEnds.revoke(tokenId);
      }
      feed.eventsAppended(oidc.orgId);
      return { ...admitted, secret: withCell(admitted.secret, config.cell) };
    },
  };
  return withOidc(next, { config: oidc, door, trustedProxies, log });
}
