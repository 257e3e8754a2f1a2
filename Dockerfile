# The server, and with it the whole `pinion` command, as the few files that `npm run build` makes: nothing is installed.
#   docker build -t pinion .
FROM node:24-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
COPY clients/ts/package.json clients/ts/
RUN npm ci --ignore-scripts
COPY clients/ts clients/ts
COPY scripts scripts
COPY src src
COPY docs docs
COPY examples examples
COPY README.md ARCHITECTURE.md CHANGELOG.md CONTRIBUTING.md device.example.toml pinion.example.toml ./
RUN npm run --silent build

FROM node:24-slim
ENV NODE_ENV=production \
    PINION_HOST=0.0.0.0 \
    PINION_DATA=/var/lib/pinion \
    PINION_LOG_FORMAT=json
WORKDIR /app
COPY --from=build /app/dist/pinion ./
# Whoever runs it may write nothing but this: the token of the first start.
RUN install -d -o node -g node -m 0700 /var/lib/pinion
VOLUME /var/lib/pinion
USER node
EXPOSE 7420
# Draining takes up to PINION_SHUTDOWN_MS (20 s): give `docker stop` more than its 10 s.
STOPSIGNAL SIGTERM
# With TLS of its own, a server answers this with 400, which shows as well that it answers.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.PINION_PORT||7420}/healthz`).then(a=>process.exit(a.ok||a.status===400?0:1),()=>process.exit(1))"]
# Young objects of 32 MB in each half, Node's default, bring a server no speed and cost it 60 MB.
ENTRYPOINT ["node", "--max-semi-space-size=32", "main.js"]
CMD ["serve"]
