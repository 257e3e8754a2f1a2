import type { Streams } from "../access/streams.ts";
import type { Bus } from "../cluster/bus.ts";
import type { InboxReader } from "../cluster/inbox.ts";
import type { Hub } from "./hub.ts";

/** Ends streams by decision: those of a token, and that of a device, on whatever replica they are. */
export type StreamEnds = InboxReader & {
  /** Ends the streams that a token opened, on every replica. */
  revoke(tokenId: string): void;
  /** Drains a device's stream on the replica that holds it; the device itself may be deleted by now. */
  disconnect(stream: {
    orgId: string;
    deviceId: string;
    replicaId: string;
    epoch: number;
    reason: "operator" | "revoked";
  }): void;
};

export function createStreamEnds(options: {
  hub: Pick<Hub, "receive">;
  bus: Bus;
  streams: Pick<Streams, "revoke">;
  authCache: { forget(tokenId: string): void };
}): StreamEnds {
  const { hub, bus } = options;

  function revokeHere(tokenId: string): void {
    options.authCache.forget(tokenId);
    options.streams.revoke(tokenId);
  }

  return {
    revoke(tokenId) {
      revokeHere(tokenId);
      bus.broadcast({ kind: "revoked", tokenId });
    },
    disconnect({ replicaId, ...stream }) {
      const message = { kind: "disconnect" as const, ...stream };
      if (!hub.receive(message)) bus.send(replicaId, message);
    },
    receive(message) {
      if (message.kind !== "revoked") return false;
      revokeHere(message.tokenId);
      return true;
    },
  };
}
