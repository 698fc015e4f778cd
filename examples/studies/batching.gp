# gnuplot -c examples/studies/batching.gp batching.db docs/batching.png
HEIGHT = 760
db = ARG1
out = ARG2
load system("dirname '".ARG0."'")."/style.gp"
of(kind) = query(sprintf("SELECT CAST(n.value AS INT), avg(v.max_vio), min(v.max_vio), max(v.max_vio), avg(v.load_cv) FROM v_runs v JOIN run_param n ON n.run = v.run AND n.path = 'workload.tokens' JOIN run_param b ON b.run = v.run AND b.path = 'workload.batching' WHERE b.value = '%s' GROUP BY 1 ORDER BY 1", kind))
set multiplot layout 1, 2 margins 0.075, 0.87, 0.14, 0.765 spacing 0.17, 0
set logscale x 2
set xtics 64, 2, 1024
set xrange [56:1150]
set xlabel "tokens in a step" textcolor rgb soft
set label 1 "The same decisions, in steps of another mixture" at screen 0.02, 0.945 font "Inter Bold,25" textcolor rgb ink
set label 2 "gpt-oss-20b, 63,015 generated tokens of 174 sequences, mean over 24 layers; bars: least and most of 10 seeds" at screen 0.02, 0.885 font "Inter,16" textcolor rgb soft
set label 3 "busiest expert over the mean, less 1" at graph -0.1, 1.08 textcolor rgb ink
set yrange [0:4.6]
set ytics 1
plot of("contiguous") using 1:2:3:4 with yerrorlines lc rgb orange pt 7 ps 1.4, \
     of("shuffled") using 1:2:3:4 with yerrorlines lc rgb blue pt 7 ps 1.4, \
     of("decode") using 1:2:3:4 with yerrorlines lc rgb green pt 7 ps 0.8
unset label 1
unset label 2
set label 3 "loads: deviation over the mean" at graph -0.1, 1.08
set label 4 "contiguous" at graph 1.03, first 1.02 textcolor rgb orange
set label 5 "shuffled" at graph 1.03, first 0.77 textcolor rgb blue
set label 6 "decode" at graph 1.03, first 0.68 textcolor rgb green
set yrange [0:1.5]
set ytics 0.25
plot of("contiguous") using 1:5 with linespoints lc rgb orange pt 7 ps 1.4, \
     of("shuffled") using 1:5 with linespoints lc rgb blue pt 7 ps 1.4, \
     of("decode") using 1:5 with linespoints lc rgb green pt 7 ps 0.8
