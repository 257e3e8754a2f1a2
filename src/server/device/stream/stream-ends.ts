import type { Streams } from "../../access/streams.ts";
import type { Bus } from "../../cluster/bus.ts";
import type { InboxReader } from "../../cluster/inbox.ts";
import type { Hub } from "../hub/hub.ts";

/** Ends streams on request, on any replica: the streams of a token, and the stream of a device. */
export type StreamEnds = InboxReader & {
  /** Ends the streams opened with a token, on every replica. */
  revoke(tokenId: string): void;
  /**
   * Drains a device's stream on its replica; the device itself may be deleted already. `operator`:
   * the device may reconnect; `revoked`: it may not.
   */
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
