import { CLIENT_VERSION } from "./device/connection.ts";
import type { TlsOptions } from "./device/transport.ts";
import type { Platform } from "./gen/pinion/v1/device_pb.js";
import { currentPlatform, ensureInstallId, type Identity, saveIdentity } from "./identity.ts";
import type { ProxySetting } from "./network/proxy.ts";
import { createClients } from "./ops/clients.ts";

export interface EnrollOptions {
  url: string;
  /** From `FleetService.CreateJoinCode`; good for one enrolment. */
  joinCode: string;
  /** Shown to people, 1 to 100 bytes. */
  label: string;
  stateDir: string;
  platform?: Platform;
  appVersion?: string;
  tls?: TlsOptions;
  /** Left out: what HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY say. */
  proxy?: ProxySetting;
  signal?: AbortSignal;
  /** Is given the token, which then is not stored with the identity. */
  keepToken?: (token: string) => Promise<void> | void;
}

/**
 * Turns a join code into this installation's identity and stores it. A repeat with a fresh code gives the same device a new
 * token. Throws a PinionError: `unauthenticated` if the code is unknown, used or expired.
 */
export async function enroll(options: EnrollOptions): Promise<Identity> {
  const installId = await ensureInstallId(options.stateDir);
  const clients = createClients({
    url: options.url,
    // As the stream will: what stands between here and the server must let it pass.
    protocol: "grpc",
    ...(options.tls === undefined ? {} : { tls: options.tls }),
    ...(options.proxy === undefined ? {} : { proxy: options.proxy }),
  });
  try {
    const response = await clients.device.enroll(
      {
        joinCode: options.joinCode,
        installId,
        platform: options.platform ?? currentPlatform(),
        label: options.label,
        appVersion: options.appVersion ?? CLIENT_VERSION,
      },
      options.signal === undefined ? {} : { signal: options.signal },
    );
    const { deviceId, orgId, token } = response;
    const identity: Identity = { installId, deviceId, orgId, token, url: options.url };
    await options.keepToken?.(token);
    await saveIdentity(
      options.stateDir,
      options.keepToken === undefined ? identity : { ...identity, token: "" },
    );
    return identity;
  } finally {
    clients.close();
  }
}
