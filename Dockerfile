# Atelier's REST API and demo, weights inside: it runs without any network.
#   docker build -t atelier .    docker run -p 8000:8000 -v atelier:/data atelier
FROM python:3.11-slim AS build
COPY requirements.txt .
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir -r requirements.txt

FROM python:3.11-slim
RUN useradd --uid 1000 --create-home atelier && mkdir /data && chown atelier /data
COPY --from=build /venv /venv
WORKDIR /app
COPY config.yaml generator.h5 detector.h5 app.py ./
COPY captioner captioner
COPY atelier atelier
RUN /venv/bin/python -m compileall -q atelier
USER atelier
ENV PATH=/venv/bin:$PATH ATELIER_DATA=/data PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 GRADIO_ANALYTICS_ENABLED=False
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=90s \
    CMD python -c "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=2)"
# exec form: the signal to stop reaches the service, which then finishes what it accepted.
CMD ["python", "-m", "atelier", "serve", "--host", "0.0.0.0", "--port", "8000"]
