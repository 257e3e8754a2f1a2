/** The files for operators: they can be parsed, and the things named in them exist. */
import { execFileSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, onTestFinished, test } from "vitest";
import { serverSettings } from "../../src/config.ts";
import { createMetrics } from "../../src/metrics.ts";
import { parseYaml } from "../support/yaml.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const read = (path: string) => readFileSync(join(root, path), "utf8");

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
  const names = ["Dockerfile", "compose.yaml", "ops/kubernetes/pinion.yaml"].flatMap((path) =>
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

test("what is in ops/ is named by the page on operations", () => {
  const page = read("docs/operations.md");
  for (const path of readdirSync(join(root, "ops"), { recursive: true, encoding: "utf8" })) {
    if (statSync(join(root, "ops", path)).isFile()) expect(page).toContain(`ops/${path}`);
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
  for (const path of ["compose.yaml", "ops/kubernetes/pinion.yaml", "ops/prometheus/alerts.yml"]) {
    const script = "import json,sys,yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    const theirs = JSON.parse(
      execFileSync("python3", ["-c", script, join(root, path)], { encoding: "utf8" }),
    );
    expect(parseYaml(read(path))).toEqual(theirs);
  }
});
