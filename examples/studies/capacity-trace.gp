# gnuplot -c examples/studies/capacity-trace.gp capacity-trace.db docs/capacity-trace.png
HEIGHT = 760
db = ARG1
out = ARG2
load system("dirname '".ARG0."'")."/style.gp"
of(kind) = query(sprintf("SELECT v.capacity_factor, 100 * avg(v.dropped_fraction), 100 * avg(v.padding_fraction) FROM v_runs v JOIN run_param b ON b.run = v.run AND b.path = 'workload.batching' WHERE b.value = '%s' GROUP BY 1 ORDER BY 1", kind))
set multiplot layout 1, 2 margins 0.075, 0.87, 0.14, 0.765 spacing 0.17, 0
set xrange [0.4:4.1]
set xtics 0.5
set xlabel "capacity factor" textcolor rgb soft
set label 1 "What a capacity costs on decisions that were made without one" at screen 0.02, 0.945 font "Inter Bold,25" textcolor rgb ink
set label 2 "gpt-oss-20b, 1024 of 63,015 generated tokens a step, mean over 24 layers, 60 steps and 10 seeds" at screen 0.02, 0.885 font "Inter,16" textcolor rgb soft
set label 3 "choices dropped, %" at graph -0.1, 1.08 textcolor rgb ink
set yrange [0:70]
plot of("contiguous") using 1:2 with linespoints lc rgb orange pt 7 ps 1.4, \
     of("shuffled") using 1:2 with linespoints lc rgb blue pt 7 ps 1.4
unset label 1
unset label 2
set label 3 "slots that hold no token, %" at graph -0.1, 1.08
set label 4 "contiguous" at graph 1.03, first 79 textcolor rgb orange
set label 5 "shuffled" at graph 1.03, first 72 textcolor rgb blue
set yrange [0:100]
plot of("contiguous") using 1:3 with linespoints lc rgb orange pt 7 ps 1.4, \
     of("shuffled") using 1:3 with linespoints lc rgb blue pt 7 ps 1.4
