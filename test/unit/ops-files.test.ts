/** The files for operators: they can be parsed, and the things named in them exist. */
import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, normalize } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, onTestFinished, test } from "vitest";
import { replicaNodeOptions } from "../../bench/lib/children.ts";
import { serverSettings } from "../../src/config.ts";
import { createMetrics } from "../../src/telemetry/metrics.ts";
import { noticeSkipped } from "../support/notice.ts";
import { findProgram } from "../support/programs.ts";
import { parseYaml, type Yaml } from "../support/yaml.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const read = (path: string) => readFileSync(join(root, path), "utf8");

/** The manifest for Kubernetes, the base and its overlay. */
function manifests(): string[] {
  return readdirSync(join(root, "ops/kubernetes"), { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".yaml"))
    .map((path) => `ops/kubernetes/${path}`);
}

/** All metrics of a replica, with the series of histograms. */
function exported() {
  const metrics = createMetrics({ version: "0.0.0" });
  onTestFinished(() => metrics.close());
  metrics.observe({
    isServing: () => true,
    isBusUp: () => true,
    clockDoubtMs: () => 0,
    hub: () => ({ sessions: 0, attempts: 0 }),
    crowd: () => ({ connections: { known: 0, stranger: 0 }, bytes: { known: 0, stranger: 0 } }),
    pools: {
      work: () => ({ open: 0, idle: 0, waiting: 0 }),
      requests: () => ({ open: 0, idle: 0, waiting: 0 }),
    },
    database: () => Promise.resolve(undefined),
  });
  return metrics.describe();
}

/** The metrics in an expression of Prometheus. */
function metricsIn(expression: string): string[] {
  return [...new Set(expression.match(/\b(?:pinion|process|nodejs)_[a-z_]+/g) ?? [])];
}

function isExported(name: string): boolean {
  const known = exported();
  return known.some(
    (metric) =>
      metric.name === name ||
      (metric.type === "histogram" &&
        ["_bucket", "_sum", "_count"].some((end) => metric.name + end === name)),
  );
}

type Rule = {
  alert: string;
  expr: string;
  for?: string;
  labels: { severity: string };
  annotations: { summary: string; description: string; runbook: string };
};

test("every alert asks for metrics that exist, and has a section that says what to do", () => {
  const [file] = parseYaml(read("ops/prometheus/alerts.yml")) as unknown as [{ groups: { rules: Rule[] }[] }];
  const rules = file.groups.flatMap((group) => group.rules);
  expect(rules.length).toBeGreaterThan(10);
  const page = read("docs/operations.md");
  const anchors = [...page.matchAll(/^#+ (.*)$/gm)].map(([, heading]) => heading!.toLowerCase());
  for (const rule of rules) {
    for (const name of metricsIn(rule.expr))
      expect([rule.alert, name, isExported(name)]).toEqual([rule.alert, name, true]);
    expect(rule.expr).toMatch(/pinion_|^up\{/);
    expect(["page", "ticket"]).toContain(rule.labels.severity);
    expect(rule.for ?? "1m").toMatch(/^\d+[mh]$/);
    expect(rule.annotations.summary).toBeTruthy();
    expect(rule.annotations.description).toBeTruthy();
    expect(rule.annotations.runbook).toBe(`docs/operations.md#${rule.alert.toLowerCase()}`);
    expect(anchors, `docs/operations.md has no "### ${rule.alert}"`).toContain(rule.alert.toLowerCase());
  }
});

test("every panel of the dashboard asks for metrics that exist, and the panels do not overlap", () => {
  type Panel = {
    id: number;
    title: string;
    gridPos: { x: number; y: number; w: number; h: number };
    targets: { expr: string }[];
  };
  const dashboard = JSON.parse(read("ops/grafana/pinion.json")) as { panels: Panel[] };
  expect(new Set(dashboard.panels.map(({ id }) => id)).size).toBe(dashboard.panels.length);
  const taken = new Map<string, string>();
  const shown = new Set<string>();
  for (const { title, targets, gridPos } of dashboard.panels) {
    for (const name of targets.flatMap(({ expr }) => metricsIn(expr))) {
      expect([title, name, isExported(name)]).toEqual([title, name, true]);
      shown.add(name.replace(/_(bucket|sum|count)$/, ""));
    }
    for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
      for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
        expect(taken.get(`${x} ${y}`), `${title} lies on another panel`).toBeUndefined();
        taken.set(`${x} ${y}`, title);
      }
    }
  }
  // And every metric is on the dashboard.
  expect(
    exported()
      .map(({ name }) => name)
      .filter((name) => !shown.has(name)),
  ).toEqual([]);
});

test("the page on operations has a row for every metric, and for none that does not exist", () => {
  const rows = [...read("docs/operations.md").matchAll(/^\| `((?:pinion|process)_[a-z_]+)`/gm)].map(
    ([, name]) => name!,
  );
  expect(rows.sort()).toEqual(
    exported()
      .map(({ name }) => name)
      .sort(),
  );
});

test("benches measure replicas with the options of Node that the image and the packages have", () => {
  const entry = /^ENTRYPOINT (.*)$/m.exec(read("Dockerfile"))?.[1] ?? "";
  expect(JSON.parse(entry)).toEqual(["node", ...replicaNodeOptions, "main.js"]);
  const given = /^Environment=NODE_OPTIONS=(.*)$/m.exec(read("ops/packages/pinion.service"))?.[1] ?? "";
  expect(given.split(" ")).toEqual(replicaNodeOptions);
});

test("what the Dockerfile copies exists and is not ignored, and it runs as somebody who is not root", () => {
  const lines = read("Dockerfile")
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"));
  const copied = lines
    .filter((line) => line.startsWith("COPY ") && !line.includes("--from"))
    .flatMap((line) => line.split(" ").slice(1, -1));
  expect(copied).toContain("src");
  const ignored = read(".dockerignore")
    .split("\n")
    .filter((line) => line !== "" && !line.startsWith("#"));
  expect(ignored[0]).toBe("*");
  const keeps = ignored.filter((line) => line.startsWith("!")).map((line) => line.slice(1));
  for (const path of copied) {
    expect(existsSync(join(root, path)), path).toBe(true);
    expect(
      keeps.some((kept) => path === kept || path.startsWith(`${kept}/`)),
      `${path} is ignored`,
    ).toBe(true);
  }
  expect(lines.filter((line) => line.startsWith("USER "))).toEqual(["USER node"]);
  expect(lines.some((line) => line.startsWith("HEALTHCHECK "))).toBe(true);
  expect(
    lines.every((line) =>
      /^(FROM|WORKDIR|COPY|RUN|ENV|VOLUME|USER|EXPOSE|STOPSIGNAL|HEALTHCHECK|ENTRYPOINT|CMD| )/.test(line),
    ),
  ).toBe(true);
  // The package of the client is a link out of node_modules: Node strips no types within
  // node_modules.
  expect(statSync(join(root, "clients/ts/src/index.ts")).isFile()).toBe(true);
  expect(copied).toContain("clients/ts");
});

test("variables that the Dockerfile, compose.yaml and the manifest set are ones of the configuration", () => {
  const names = ["Dockerfile", "compose.yaml", ...manifests()].flatMap((path) =>
    [...read(path).matchAll(/\b(?:PINION|DATABASE)_[A-Z_]+/g)].map(([name]) => name),
  );
  const known = new Set([...Object.keys(serverSettings.shape), "PINION_DATA"]);
  expect([...new Set(names)].filter((name) => !known.has(name))).toEqual([]);
});

test("compose.yaml waits for the database, and gives a stop the time that a drain takes", () => {
  const [{ services }] = parseYaml(read("compose.yaml")) as unknown as [
    { services: Record<string, { [key: string]: unknown }> },
  ];
  expect(services.database!.healthcheck).toMatchObject({ test: expect.arrayContaining(["pg_isready"]) });
  expect(services.pinion).toMatchObject({
    depends_on: { database: { condition: "service_healthy" } },
    stop_grace_period: "40s",
    cap_drop: ["ALL"],
    ports: ["127.0.0.1:7420:7420"],
  });
});

test("the manifest has two replicas, probes on paths that exist, a drain that fits, and nobody is root", () => {
  type Deployment = {
    kind: string;
    spec: {
      replicas: number;
      strategy: { rollingUpdate: object };
      template: {
        spec: {
          terminationGracePeriodSeconds: number;
          securityContext: object;
          containers: {
            [probe: string]: unknown;
            env: { name: string; value: string }[];
            lifecycle: { preStop: { exec: { command: string[] } } };
          }[];
        };
      };
    };
  };
  const documents = parseYaml(read("ops/kubernetes/pinion.yaml")) as unknown as Deployment[];
  expect(documents.map(({ kind }) => kind)).toEqual([
    "Deployment",
    "Service",
    "PodDisruptionBudget",
    "NetworkPolicy",
  ]);
  const policy = documents[3]! as unknown as { spec: object };
  expect(policy.spec).toMatchObject({
    podSelector: { matchLabels: { app: "pinion" } },
    ingress: [{ ports: [{ port: "http", protocol: "TCP" }] }],
  });
  const { spec } = documents[0]!;
  expect(spec.replicas).toBe(2);
  expect(spec.strategy.rollingUpdate).toEqual({ maxSurge: 1, maxUnavailable: 0 });
  const pod = spec.template.spec;
  expect(pod.securityContext).toMatchObject({
    runAsNonRoot: true,
    seccompProfile: { type: "RuntimeDefault" },
  });
  const container = pod.containers[0]!;
  expect(container).toMatchObject({
    livenessProbe: { httpGet: { path: "/healthz", port: "probes" } },
    startupProbe: { httpGet: { path: "/healthz", port: "probes" } },
    readinessProbe: { httpGet: { path: "/readyz", port: "probes" } },
    securityContext: {
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ["ALL"] },
    },
  });
  const shutdownMs = Number(container.env.find(({ name }) => name === "PINION_SHUTDOWN_MS")!.value);
  const preStopSeconds = Number(container.lifecycle.preStop.exec.command[1]);
  expect(pod.terminationGracePeriodSeconds).toBeGreaterThan(shutdownMs / 1000 + preStopSeconds);
});

type KubernetesObject = {
  kind: string;
  metadata: { name: string; namespace?: string };
  [key: string]: Yaml | object;
};

function objectsOf(folder: string): KubernetesObject[] {
  const path = `${folder}/kustomization.yaml`;
  const [kustomization] = parseYaml(read(path)) as unknown as [{ resources: string[] }];
  return kustomization.resources.flatMap((resource) => {
    const target = normalize(join(folder, resource));
    if (statSync(join(root, target)).isDirectory()) return objectsOf(target);
    return parseYaml(read(target)) as unknown as KubernetesObject[];
  });
}

test("the base has the objects of the manifest in no namespace, and an account without a token", () => {
  const manifest = parseYaml(read("ops/kubernetes/pinion.yaml")) as unknown as KubernetesObject[];
  const base = objectsOf("ops/kubernetes/base");
  expect(base.map(({ kind }) => kind).sort()).toEqual(
    [...manifest.map(({ kind }) => kind), "ServiceAccount"].sort(),
  );
  expect(base.filter(({ metadata }) => metadata.namespace !== undefined)).toEqual([]);
  for (const { metadata, ...theirs } of manifest) {
    const found = base.find(({ kind }) => kind === theirs.kind)!;
    const { metadata: own, ...ours } = structuredClone(found);
    expect({ ...own, namespace: metadata.namespace }).toEqual(metadata);
    if (ours.kind === "Deployment") {
      const pod = (ours.spec as { template: { spec: Record<string, unknown> } }).template.spec;
      expect(pod.serviceAccountName).toBe("pinion");
      delete pod.serviceAccountName;
    }
    expect(ours).toEqual(theirs);
  }
  const account = base.find(({ kind }) => kind === "ServiceAccount")!;
  expect(account).toMatchObject({ metadata: { name: "pinion" }, automountServiceAccountToken: false });
});

test("every name, label and port that an object of the base refers to exists", () => {
  const base = objectsOf("ops/kubernetes/base");
  const of = <T>(kind: string) => base.find((object) => object.kind === kind)!.spec as T;
  type Container = {
    args: string[];
    env: { name: string; value: string }[];
    envFrom: { secretRef: { name: string } }[];
    ports: { name: string; containerPort: number }[];
    volumeMounts: { name: string }[];
    [probe: string]: unknown;
  };
  const deployment = of<{
    selector: { matchLabels: object };
    template: {
      metadata: { labels: object; annotations: Record<string, string> };
      spec: { containers: [Container]; volumes: { name: string }[] };
    };
  }>("Deployment");
  const { labels, annotations } = deployment.template.metadata;
  const { containers, volumes } = deployment.template.spec;
  const [container] = containers;
  expect(deployment.selector.matchLabels).toEqual(labels);
  expect(of<{ selector: object }>("Service").selector).toEqual(labels);
  expect(of<{ selector: object }>("PodDisruptionBudget").selector).toEqual({ matchLabels: labels });
  expect(of<{ podSelector: object }>("NetworkPolicy").podSelector).toEqual({ matchLabels: labels });
  expect(container.volumeMounts.map(({ name }) => name).sort()).toEqual(
    volumes.map(({ name }) => name).sort(),
  );

  const settings = serverSettings.parse(
    Object.fromEntries([
      // Of the Secret.
      ["DATABASE_URL", "postgres://database/pinion"],
      ...container.env.map(({ name, value }) => [name, value]),
    ]),
  );
  const ports = Object.fromEntries(container.ports.map(({ name, containerPort }) => [name, containerPort]));
  expect(ports).toEqual({ http: settings.PINION_PORT, probes: settings.PINION_PROBE_PORT });
  expect(annotations["prometheus.io/port"]).toBe(String(settings.PINION_PROBE_PORT));
  const answered = [...read("src/server/http/probes.ts").matchAll(/case "(\/[a-z]+)":/g)].map(
    ([, path]) => path,
  );
  expect(answered).toContain(annotations["prometheus.io/path"]);
  for (const probe of ["startupProbe", "livenessProbe", "readinessProbe"]) {
    const { httpGet } = container[probe] as { httpGet: { path: string; port: string } };
    expect(answered).toContain(httpGet.path);
    expect(ports[httpGet.port]).toBe(settings.PINION_PROBE_PORT);
  }
  const [service] = of<{ ports: [{ port: number; targetPort: string }] }>("Service").ports;
  expect([service.port, ports[service.targetPort]]).toEqual([settings.PINION_PORT, settings.PINION_PORT]);
  const [rule] = of<{ ingress: [{ ports: { port: string }[] }] }>("NetworkPolicy").ingress;
  for (const { port } of rule.ports) expect(ports).toHaveProperty(port);
  // The first lines of the manifest create the Secret.
  const secret = container.envFrom[0]!.secretRef.name;
  expect(read("ops/kubernetes/pinion.yaml")).toContain(`create secret generic ${secret} `);
});

test("the overlay patches, counts and names what the base has", () => {
  const folder = "ops/kubernetes/overlays/example";
  const base = objectsOf("ops/kubernetes/base");
  type Deployment = { spec: { template: { spec: { containers: { name: string; image: string }[] } } } };
  const [{ patches, images, replicas, namespace }] = parseYaml(
    read(`${folder}/kustomization.yaml`),
  ) as unknown as [
    {
      patches: { path: string }[];
      images: { name: string }[];
      replicas: { name: string }[];
      namespace: string;
    },
  ];
  const deployment = base.find(({ kind }) => kind === "Deployment")!;
  const [container] = (deployment as unknown as Deployment).spec.template.spec.containers;
  for (const { name } of images) expect(container!.image.split(":")[0]).toBe(name);
  for (const { name } of replicas) expect(deployment.metadata.name).toBe(name);
  for (const { path } of patches) {
    const [patch] = parseYaml(read(`${folder}/${path}`)) as unknown as [KubernetesObject & Deployment];
    expect(
      base.some(({ kind, metadata }) => kind === patch.kind && metadata.name === patch.metadata.name),
    ).toBe(true);
    expect(patch.spec.template.spec.containers.map(({ name }) => name)).toEqual([container!.name]);
  }
  const created = objectsOf(folder).filter(({ kind }) => kind === "Namespace");
  expect(created.map(({ metadata }) => metadata.name)).toEqual([namespace]);
});

const kubectl = findProgram("kubectl", undefined);
if (!kubectl) noticeSkipped("kustomize on ops/kubernetes", "no kubectl here");

test.runIf(kubectl)("kustomize builds the base and the overlay", () => {
  for (const [folder, replicas] of [
    ["base", 2],
    ["overlays/example", 3],
  ] as const) {
    const built = execFileSync(kubectl!, ["kustomize", join(root, "ops/kubernetes", folder)], {
      encoding: "utf8",
    });
    expect(built).toContain(`replicas: ${replicas}\n`);
    expect(built).toContain("name: PINION_PROBE_PORT");
    expect(built.includes("https://pinion.example.org")).toBe(folder !== "base");
  }
});

const doors = {
  haproxy: { file: "haproxy.cfg", check: ["-c", "-f"], package: "haproxy" },
  nginx: { file: "nginx.conf", check: ["-t", "-c"], package: "nginx-light" },
  envoy: { file: "envoy.yaml", check: ["--mode", "validate", "-c"], package: "envoy" },
};

for (const [name, { file, check, package: wanted }] of Object.entries(doors)) {
  const program = findProgram(name, undefined);
  const isWhole = program && findProgram("openssl", undefined);
  if (!isWhole) noticeSkipped(`the check of ops/cells/${file}`, `no ${name} or openssl here (${wanted})`);

  test.runIf(isWhole)(`${name} takes its configuration in ops/cells`, () => {
    const place = mkdtempSync(join(tmpdir(), "pinion-door-"));
    onTestFinished(() => rmSync(place, { recursive: true, force: true }));
    const [key, certificate] = [join(place, "pinion.key"), join(place, "pinion.crt")];
    const options = [
      "-x509",
      "-newkey",
      "ec",
      "-pkeyopt",
      "ec_paramgen_curve:P-256",
      "-nodes",
      "-subj",
      "/CN=pinion",
    ];
    execFileSync("openssl", ["req", ...options, "-days", "1", "-keyout", key, "-out", certificate], {
      stdio: "ignore",
    });
    writeFileSync(join(place, "pinion.pem"), readFileSync(key, "utf8") + readFileSync(certificate, "utf8"));
    const text = read(`ops/cells/${file}`)
      .replaceAll(`/etc/${name}/pinion.`, `${place}/pinion.`)
      .replaceAll("/run/nginx.pid", join(place, "nginx.pid"))
      // Only root may change the user.
      .replace(/^user .*;\n/m, "");
    writeFileSync(join(place, file), text);
    const { status, stdout, stderr } = spawnSync(program!, [...check, join(place, file)], {
      encoding: "utf8",
    });
    expect([status, `${stdout}${stderr}`]).toEqual([0, expect.not.stringMatching(/\b(warn|emerg|ALERT)/i)]);
  });
}

test("the front doors have time for a stream, and lead to the ports of the manifest", () => {
  const { PINION_PORT: port, PINION_HEARTBEAT_INTERVAL_MS: beatMs } = serverSettings.parse({
    DATABASE_URL: "postgres://",
  });
  expect(beatMs).toBeLessThan(3_600_000);
  const texts = Object.values(doors).map(({ file }) => read(`ops/cells/${file}`));
  for (const text of texts)
    expect(text).toMatch(new RegExp(`10\\.0\\.0\\.1[12](:${port}|\\n +port_value: ${port})`));
  const [haproxy, nginx, envoy] = texts as [string, string, string];
  for (const name of ["client", "server", "tunnel"])
    expect(haproxy).toMatch(new RegExp(`timeout ${name} 1h$`, "m"));
  expect(haproxy).toMatch(/proto h2/);
  for (const name of ["grpc_read_timeout", "grpc_send_timeout", "client_body_timeout"])
    expect(nginx).toContain(`${name} 1h;`);
  expect(nginx).toContain("client_max_body_size 0;");
  expect(parseYaml(envoy)).toHaveLength(1);
  for (const line of ["stream_idle_timeout: 3600s", "request_timeout: 0s", " timeout: 0s"])
    expect(envoy).toContain(line);
});

test("what is in ops/ is named by the page on operations", () => {
  const page = read("docs/operations.md");
  for (const path of readdirSync(join(root, "ops"), { recursive: true, encoding: "utf8" })) {
    // A chart is a package: the page names its folder.
    const named = path.startsWith("helm/pinion/") ? "helm/pinion" : path;
    if (statSync(join(root, "ops", path)).isFile()) expect(page).toContain(`ops/${named}`);
  }
});

test("the reader of YAML refuses what it might read otherwise than others", () => {
  expect(parseYaml("a: 1\nb:\n  - x: 'it''s'\n    y: [p, \"q\"]\n  - z\nc: |\n  one\n  two\n")).toEqual([
    { a: 1, b: [{ x: "it's", y: ["p", "q"] }, "z"], c: "one\ntwo\n" },
  ]);
  for (const bad of [
    "a:\n\tb: 1",
    "a: 1\n   b: 2",
    "a: x # y",
    "a: 1\na: 2",
    "a: {b: 1}",
    "a: *b",
    "just words",
  ]) {
    expect(() => parseYaml(bad), bad).toThrow();
  }
});

/** Another opinion on the files, where Python has a parser. */
const hasPythonYaml = (() => {
  try {
    execFileSync("python3", ["-c", "import yaml"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
})();

test.runIf(hasPythonYaml)("another parser reads the same (needs Python with PyYAML)", () => {
  const paths = ["compose.yaml", ...manifests(), "ops/cells/envoy.yaml", "ops/prometheus/alerts.yml"];
  const script =
    "import json,sys,yaml; print(json.dumps([list(yaml.safe_load_all(open(path))) for path in sys.argv[1:]]))";
  const files = paths.map((path) => join(root, path));
  const theirs = JSON.parse(
    execFileSync("python3", ["-c", script, ...files], { encoding: "utf8" }),
  ) as unknown[];
  for (const [index, path] of paths.entries()) expect(parseYaml(read(path)), path).toEqual(theirs[index]);
});
