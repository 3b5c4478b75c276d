{{- /*
A Deployment of walhook. Takes a dict: root; role, which is "" for one that does everything, "tail" or "deliver";
replicas; resources, where they are others than all have.
*/ -}}
{{- define "walhook.deployment" -}}
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ include "walhook.memberName" . }}
  labels:
    {{- include "walhook.labels" .root | nindent 4 }}
    {{- with .role }}
    app.kubernetes.io/component: {{ . }}
    {{- end }}
spec:
  replicas: {{ .replicas }}
  {{- if eq .role "deliver" }}
  # A new one first: it takes its share, and then one of before gives its own back and goes.
  {{- else }}
  # A new one first: it stands by, which is ready enough, and takes over when the one that has the slot goes.
  {{- end }}
  strategy:
    type: RollingUpdate
    rollingUpdate:
      maxSurge: 1
      maxUnavailable: 0
  selector:
    matchLabels:
      {{- include "walhook.memberSelector" . | nindent 6 }}
  template:
    metadata:
      annotations:
        # A change of the configuration is a rollout.
        checksum/config: {{ include (print .root.Template.BasePath "/configmap.yaml") .root | sha256sum }}
        {{- with .root.Values.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      labels:
        {{- include "walhook.memberSelector" . | nindent 8 }}
        {{- with .root.Values.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ include "walhook.serviceAccount" .root }}
      automountServiceAccountToken: false
      {{- with .root.Values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .root.Values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      securityContext:
        {{- toYaml .root.Values.podSecurityContext | nindent 8 }}
      terminationGracePeriodSeconds: {{ .root.Values.terminationGracePeriodSeconds }}
      containers:
        - name: walhook
          image: {{ include "walhook.image" .root | quote }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          {{- if eq .role "deliver" }}
          args: ["run", "--role", "deliver"]
          {{- else }}
          args: ["run", {{ if .role }}"--role", {{ .role | quote }}, {{ end }}"--take-over-after", {{ .root.Values.takeOverAfterSeconds | int | quote }}]
          {{- end }}
          env:
            - name: WALHOOK_CONFIG
              value: /etc/walhook/walhook.toml
            {{- with .root.Values.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          {{- if or .root.Values.existingSecret .root.Values.extraEnvFrom }}
          envFrom:
            {{- with .root.Values.existingSecret }}
            - secretRef:
                name: {{ . }}
            {{- end }}
            {{- with .root.Values.extraEnvFrom }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          {{- end }}
          ports:
            - name: http
              containerPort: {{ .root.Values.service.port }}
            {{- if and .root.Values.inbound.enabled (ne .role "deliver") }}
            - name: inbound
              containerPort: {{ .root.Values.inbound.port }}
            {{- end }}
          # /health and not /ready: a standby, or a walhook whose PostgreSQL restarts, is not to be killed.
          startupProbe:
            httpGet: { path: /health, port: http }
            periodSeconds: 1
            failureThreshold: 60
          livenessProbe:
            httpGet: { path: /health, port: http }
            periodSeconds: 10
            timeoutSeconds: 3
          {{- if eq .role "deliver" }}
          # A worker is ready also while others have all partitions.
          readinessProbe:
            httpGet: { path: /ready, port: http }
          {{- else }}
          # With standby=ok: a new walhook cannot have the slot before the old one is gone, and the old one goes
          # when the new one is ready.
          readinessProbe:
            httpGet: { path: "/ready?standby=ok", port: http }
          {{- end }}
            periodSeconds: 2
            timeoutSeconds: 3
          resources:
            {{- toYaml (default .root.Values.resources .resources) | nindent 12 }}
          securityContext:
            {{- toYaml .root.Values.securityContext | nindent 12 }}
          volumeMounts:
            - name: config
              mountPath: /etc/walhook
              readOnly: true
            {{- with .root.Values.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      volumes:
        - name: config
          configMap:
            name: {{ include "walhook.fullname" .root }}
        {{- with .root.Values.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- if .root.Values.spreadOverHosts }}
      topologySpreadConstraints:
        - maxSkew: 1
          topologyKey: kubernetes.io/hostname
          whenUnsatisfiable: ScheduleAnyway
          labelSelector:
            matchLabels:
              {{- include "walhook.memberSelector" . | nindent 14 }}
      {{- end }}
      {{- with .root.Values.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .root.Values.affinity }}
      affinity:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .root.Values.tolerations }}
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end -}}
