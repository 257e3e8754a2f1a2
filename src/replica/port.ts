/** The services on a replica's port: the API, the probes, the page, device streams. */
import { readFile } from "node:fs/promises";
import type { IncomingHttpHeaders } from "node:http";
import type { ReplicaConfig } from "../config.ts";
import { withCookies } from "../server/access/cookies.ts";
import { peerAddressOf } from "../server/access/peer.ts";
import { sortStrangers, strangerBytesMax } from "../server/access/strangers.ts";
import { createDeviceStreams } from "../server/device/grpc-stream.ts";
import { withDocumentation } from "../server/http/documentation.ts";
import { withDownloads } from "../server/http/downloads.ts";
import { withHooks } from "../server/http/hooks.ts";
import { createHostCheck } from "../server/http/own-host.ts";
import { loadPage, withPage } from "../server/http/page.ts";
import { withPlatformWebhooks } from "../server/http/platform-webhooks.ts";
import { openPort, type Port } from "../server/http/port.ts";
import { noProbe, openProbePort } from "../server/http/probe-port.ts";
import { withProbes } from "../server/http/probes.ts";
import type { Access } from "./access.ts";
import type { Foundation } from "./foundation.ts";
import { withProvider } from "./provider.ts";
import { type Own, serveRpc } from "./rpc.ts";
import type { Storage } from "./storage.ts";
import type { Work } from "./work.ts";

/** Number of connections for calls, reconnects and unknown peers, besides the devices'. */
const connectionsBesideStreams = 5_000;

/** Opens the port. `shutdownSignal` ends the open streams. */
export async function openReplicaPort(
  foundation: Foundation,
  storage: Storage,
  access: Access,
  work: Work,
  own: Own,
): Promise<Port> {
  const { config, log, metrics, lastLine } = foundation;
  const { guard, limits } = access;
  const { requests } = storage;
  const { trustedProxies } = config;
  const { messageBytesMax } = config.session;
  const addressOf = (headers: IncomingHttpHeaders, remoteAddress: string | undefined) =>
    peerAddressOf(headers, remoteAddress, trustedProxies);
  const { crowd } = own;
  const within = serveRpc(foundation, storage, access, work, own);
  const common = { guard, limits, trustedProxies, crowd };
  const streams = createDeviceStreams({ ...common, hub: work.hub, log, messageBytesMax });
  const known = within(messageBytesMax);
  const stranger = within(strangerBytesMax);
  const sorted = sortStrangers({ ...common, isStream: known.isStream, known, stranger });
  const cookies = withCookies(sorted, { publicUrl: config.publicUrl });
  const rpc = await withProvider(cookies, foundation, storage, access, work, own);
  const isBehindProxies = trustedProxies > 0;
  const check = createHostCheck({ host: config.host, publicUrl: config.publicUrl, isBehindProxies });
  const probes = {
    ...{ health: own.health, db: requests.db, metrics, metricsToken: config.metricsToken },
    isBusUp: () => work.bus.isUp(),
    check,
  };
  if (config.probePort !== undefined) {
    const handler = withProbes({ ...probes, rpc: noProbe });
    const probePort = await openProbePort({ host: config.host, port: config.probePort, handler, lastLine });
    foundation.opened.defer(() => probePort.close());
  }
  return openPort({
    host: config.host,
    port: config.port,
    log,
    lastLine,
    crowd,
    connectionsMax: config.session.streamsMax + connectionsBesideStreams,
    ...(config.tls ? { tls: await readTls(config.tls) } : {}),
    ...(config.session.isBare ? { takeStream: streams.take } : {}),
    handler: withHooks(
      withPlatformWebhooks(
        withDownloads(withDocumentation(withPage(withProbes({ ...probes, rpc }), loadPage(), check), check), {
          offers: work.offers,
          publicUrl: config.publicUrl,
          isBehindProxies,
          check,
        }),
        {
          ...{ crowd, log, addressOf, publicUrl: config.publicUrl },
          take: async (platform, request) =>
            (await own.platforms.speakers.find(platform))?.takeWebhook?.(request),
        },
      ),
      {
        ...{ crossOrgDb: requests.db, db: requests.tenantDb, crowd, log },
        ...{ keyring: config.secrets.keyring, references: config.secrets.references },
        surroundings: { doorbell: work.publisher, quotas: access.quotas },
        addressOf,
        onEvents: (orgId) => work.feed.eventsAppended(orgId),
      },
    ),
  });
}

async function readTls(tls: NonNullable<ReplicaConfig["tls"]>) {
  const [cert, key, ca] = await Promise.all([
    readFile(tls.certFile),
    readFile(tls.keyFile),
    tls.clientCaFile ? readFile(tls.clientCaFile) : undefined,
  ]);
  return ca ? { cert, key, ca, requestCert: true, rejectUnauthorized: true } : { cert, key };
}
