# The HTTP front end: no torch, no GPU. Build from the repository's root: see compose.yaml.
FROM python:3.12-slim

WORKDIR /app
COPY pyproject.toml README.md LICENSE ./
COPY config ./config
COPY server ./server
COPY workers ./workers
RUN pip install --no-cache-dir .

# The volume is shared with engine and worker, so all three run as the same user.
RUN useradd --uid 10001 --no-create-home lift && install -d -o lift /data
USER lift
ENV LIFT_HOME=/data LIFT_SERVER__HOST=0.0.0.0 PYTHONUNBUFFERED=1
EXPOSE 8000
HEALTHCHECK --start-period=10s --interval=10s --timeout=5s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
CMD ["python", "-m", "lift_server"]
